"""Does a neuron promote or suppress these tokens, more than the layer's other neurons do theirs?"""

from collections.abc import Collection
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import token_id
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval, percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import layer_of, site_of, write_vectors_at
from neuronaut.tools.trials.dose import (
    Places,
    Plain,
    choose_places,
    direct_effect,
    plain_run,
    unit_effect,
    vector_effect,
    written,
)
from neuronaut.tools.trials.nulls import candidate_units
from neuronaut.tools.units import Unit

N_NULL_UNITS = 40
N_TOKENS = 5  # a claim about the output names at most five tokens
FALL = 1.5  # times less than the token before: from there on tokens do not belong to the claim
LOW = 0.25  # of the largest effect; what lies below counts as equal
Direction = Literal["promotes", "suppresses"]


class EffectArgs(ToolArgs):
    """Which neuron, how many places an arm."""

    unit: str
    n_places: int = Field(default=24, ge=8, le=200)
    seed: int = 0


class TestWritesArgs(EffectArgs):
    """The registered claim: these tokens are promoted (or suppressed); tested on one confirm block."""

    direction: Direction
    tokens: tuple[str, ...] = Field(min_length=1, max_length=64)
    block: int = Field(ge=0, le=2)


def effect_places(
    context: ToolContext, unit: Unit, args: EffectArgs, split: Literal["design", "confirm"], block: int | None
) -> list[Places]:
    """The places of both arms on one split, by the firing rule of the explore text. Refuses a unit without one."""
    check_unit(context.target.spec, unit, context.target.dictionaries)
    explored = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    rule = firing_rule(explored, context.sample("explore", EXPLORE_TOKENS))
    if isinstance(rule, str):
        raise ToolRefused(f"{unit.address}: {rule}")
    tokens = context.tokens(split, block)
    activations = context.activations(unit, split, block=block)
    return choose_places(tokens, activations, rule.threshold, sign=unit.sign, n=args.n_places, seed=args.seed)


def unigram(context: ToolContext) -> Array:
    """(d_vocab,) share of each token in explore text, with one count added to each."""
    tokens = context.tokens("explore")
    counts = np.bincount(tokens.ids[tokens.scored], minlength=context.target.spec.d_vocab) + 1.0
    return counts / counts.sum()


def extreme_tokens(effect: Tensor, vocabulary_seen: Array, n: int = N_TOKENS) -> dict[Direction, Tensor]:
    """The `n` tokens that a mean effect (d_vocab,) raises most, and those that it lowers most, among tokens seen in
    explore text: log-probabilities of never-seen tokens move freely and mean nothing."""
    seen = torch.from_numpy(vocabulary_seen)
    up = torch.where(seen, effect, torch.tensor(-torch.inf))
    down = torch.where(seen, -effect, torch.tensor(-torch.inf))
    k = min(n, int(seen.sum()))
    return {"promotes": torch.topk(up, k).indices, "suppresses": torch.topk(down, k).indices}


def moved_most(effect: Tensor, vocabulary_seen: Array) -> tuple[Direction, Tensor]:
    """The direction of the largest mean effect (d_vocab,) on one token, and the tokens to claim: the extreme ones up to
    the steepest fall from one to the next, all N_TOKENS where the effect nowhere falls by a third."""
    chosen = extreme_tokens(effect, vocabulary_seen, N_TOKENS + 1)
    first = {direction: float(effect[ids[0]].abs()) for direction, ids in chosen.items()}
    direction: Direction = "promotes" if first["promotes"] >= first["suppresses"] else "suppresses"
    sizes = effect[chosen[direction]] * (1.0 if direction == "promotes" else -1.0)
    sizes = sizes.clamp_min(LOW * float(sizes[0].clamp_min(1e-9)))
    falls = sizes[:-1] / sizes[1:]
    steepest = int(falls.argmax())
    return direction, chosen[direction][: steepest + 1 if float(falls[steepest]) >= FALL else N_TOKENS]


def own_tokens(effect: Tensor, vocabulary_seen: Array, n: int) -> tuple[Direction, Tensor]:
    """The direction of the largest mean effect (d_vocab,) on one token, and the `n` tokens moved most in it: what a claim
    of `n` tokens about another neuron would name."""
    direction, _ = moved_most(effect, vocabulary_seen)
    return direction, extreme_tokens(effect, vocabulary_seen, n)[direction]


def seen_tokens(share: Array) -> Array:
    """(d_vocab,) bool: tokens with at least 20 occurrences worth of share in 50,000 tokens of explore text."""
    seen = share >= 20 / 50_000
    return seen if seen.sum() >= 2 * N_TOKENS else share >= np.sort(share)[-2 * N_TOKENS]


def _both_arms(target: TargetModel, unit: Unit, plains: list[Plain]) -> Tensor:
    return torch.cat([unit_effect(target, unit, plain) for plain in plains])


def null_vectors(target: TargetModel, unit: Unit, seed: int, among: Collection[int] | None = None) -> Tensor:
    """(N_NULL_UNITS, d_model) write vectors of other neurons of the layer (features of the dictionary; of those `among`
    where there are enough), scaled to the length of the unit's own.

    Refuses a site with fewer units that write anything: a 95th percentile needs so many.
    """
    site = site_of(target, unit)
    vectors = write_vectors_at(target, site)
    norms = vectors.norm(dim=1)
    others = [int(i) for i in torch.nonzero(norms > 0)[:, 0] if i != unit.index]
    kept = others if among is None else [i for i in others if i in among]
    others = kept if len(kept) >= N_NULL_UNITS else others
    if len(others) < N_NULL_UNITS:
        place = f"layer {unit.layer}" if unit.kind == "neuron" else unit.name
        raise ToolRefused(
            f"{place} has only {len(others)} other {unit.kind}s that write anything: "
            f"whether {unit.address} is special takes {N_NULL_UNITS}"
        )
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(others)[:N_NULL_UNITS])
    return vectors[chosen] / norms[chosen, None] * target.write_vector(unit).norm()


def _null_effects(target: TargetModel, unit: Unit, plains: list[Plain], vectors: Tensor) -> list[Tensor]:
    """For each null vector, (n, d_vocab) at the unit's own places and doses."""
    site = site_of(target, unit)
    return [
        torch.cat([vector_effect(target, site, p, written(target, unit, p, vector)) for p in plains])
        for vector in vectors
    ]


@tool("output_effects", opens_test_text=True)
def output_effects(context: ToolContext, args: EffectArgs) -> ToolResult:
    """Tokens that the neuron raises and lowers most at its own dose on design text, total effect.

    The value beside each token is the mean change of its log-probability in nats when the unit fires. claim: the tokens
    up to the steepest fall, in the direction of the one that moves most.
    """
    unit = Unit.parse(args.unit)
    places = effect_places(context, unit, args, "design", None)
    if not places:
        raise ToolRefused(f"{unit.address} never fires on design text: its output cannot be measured here")
    mean = _both_arms(
        context.target, unit, [plain_run(context.target, layer_of(context.target, unit), p) for p in places]
    ).mean(dim=0)
    seen = seen_tokens(unigram(context))
    chosen, (direction, claimed) = extreme_tokens(mean, seen), moved_most(mean, seen)
    pieces = context.target.vocabulary.pieces
    listed = {str(d): [{"token": pieces[i], "nats": float(mean[i])} for i in ids.tolist()] for d, ids in chosen.items()}
    claim = {
        "direction": direction,
        "tokens": [pieces[i] for i in claimed.tolist()],
        "nats": float(mean[claimed].mean()),
    }
    return ToolResult(payload={"unit": unit.address, "claim": claim, **listed, "places": sum(map(len, places))})


def matched_tokens(chosen: Array, share: Array, seed: int, exclude: Collection[int] = ()) -> Array:
    """For each chosen token one other of nearly equal unigram probability (nearest in log-probability, without reuse).

    exclude: ids that no text holds, such as special tokens.
    """
    rng = np.random.default_rng(seed)
    free = np.ones(len(share), dtype=bool)
    free[[*chosen.tolist(), *exclude]] = False
    matched = []
    for token in chosen:
        distance = np.where(free, np.abs(np.log(share) - np.log(share[token])), np.inf)
        near = np.argsort(distance + 1e-9 * rng.random(len(share)))[:1]
        free[near] = False
        matched.append(int(near[0]))
    return np.array(matched)


def _live(context: ToolContext, unit: Unit) -> Collection[int] | None:
    """Features that fire, of the candidates; None of a neuron: dead features write at random."""
    if unit.kind != "feature":
        return None
    found = candidate_units(context, unit)
    return {int(i) for i, rule in zip(found.indices, found.rules, strict=True) if rule is not None}


def _null_deltas(context: ToolContext, unit: Unit, args: TestWritesArgs, plains: list[Plain]) -> Array:
    """(n_null,) effect on confirm of the other neurons, each on its own tokens and in its own direction, both found on
    design by the search that found the unit's."""
    target, seen = context.target, seen_tokens(unigram(context))
    vectors = null_vectors(target, unit, args.seed, _live(context, unit))
    design = [plain_run(target, layer_of(target, unit), p) for p in effect_places(context, unit, args, "design", None)]
    if not design:
        raise ToolRefused(f"{unit.address} never fires on design text: other neurons' tokens cannot be found there")
    deltas = []
    searched = _null_effects(target, unit, design, vectors)
    for found, tested in zip(searched, _null_effects(target, unit, plains, vectors), strict=True):
        mean = found.mean(dim=0)
        direction, own = own_tokens(mean, seen, len(args.tokens))
        moved = float(tested[:, own].mean())
        deltas.append(moved if direction == "promotes" else -moved)
    return np.array(deltas)


def wins_in_both_arms(documents: list[Array], gains: list[Array]) -> list[float]:
    """1 for each document in which every arm gains, −1 for each other; documents without a place in every arm, or that
    nothing moved, tell nothing and are left out.

    gains: per arm (n_places,), the claimed tokens' effect less that of their controls; one place a document.
    """
    arms = [
        dict(zip(numbers.tolist(), gain.tolist(), strict=True)) for numbers, gain in zip(documents, gains, strict=True)
    ]
    bets = []
    for document in sorted(set.intersection(*(set(arm) for arm in arms))):
        found = [arm[document] for arm in arms]
        if any(found):
            bets.append(1.0 if min(found) > 0 else -1.0)
    return bets


def by_document(documents: Array, values: Array) -> Array:
    """(n_documents,) mean value of each document, in the order of the document numbers."""
    numbers, inverse = np.unique(documents, return_inverse=True)
    return np.bincount(inverse, weights=values) / np.bincount(inverse, minlength=len(numbers))


def kl_share(plain: Tensor, edited: Tensor, chosen: Tensor) -> float:
    """Share of KL(plain || edited), summed over places, that the chosen tokens carry; in [0, 1], 0 where nothing moved.

    plain, edited: (n, d_vocab) log-probabilities. A token's part is p·log(p/q) − p + q: never negative, and since both
    sides sum to 1 the parts add up to the KL.
    """
    p, q = plain.double().exp(), edited.double().exp()
    parts = (p * (plain.double() - edited.double()) - p + q).clamp_min(0.0).sum(dim=0)
    total = float(parts.sum())
    return float(parts[chosen].sum()) / total if total > 0 else 0.0


@tool("test_writes", opens_test_text=True)
def test_writes(context: ToolContext, args: TestWritesArgs) -> ToolResult:
    """Change of the mean log-probability of the claimed tokens at the unit's own dose, on one confirm block.

    delta: nats, positive when the claim holds, total effect, both arms, mean by document; its null is the same for 40
    other neurons of the layer at equal norm, each with its own tokens found by the same search. A document is won when
    the claimed tokens move more than tokens of equal frequency in both arms.
    """
    unit, target = Unit.parse(args.unit), context.target
    places = effect_places(context, unit, args, "confirm", args.block)
    if not places or len(places[0]) < 2:
        raise ToolRefused(f"{unit.address} fires in fewer than two documents of this text: no interval can be given")
    plains = [plain_run(target, layer_of(target, unit), p) for p in places]
    sign = 1.0 if args.direction == "promotes" else -1.0
    chosen = np.array([token_id(target, piece) for piece in args.tokens])
    matched = matched_tokens(chosen, unigram(context), args.seed, exclude=target.vocabulary.special)
    effects = [unit_effect(target, unit, plain) for plain in plains]
    deltas = [sign * e[:, chosen].mean(dim=1).numpy() for e in effects]
    controls = [sign * e[:, matched].mean(dim=1).numpy() for e in effects]
    documents = [p.documents for p in places]
    delta = by_document(np.concatenate(documents), np.concatenate(deltas))
    bets = wins_in_both_arms(documents, [d - c for d, c in zip(deltas, controls, strict=True)])
    nulls, interval = _null_deltas(context, unit, args, plains), mean_interval(delta, 0.9)
    assert interval is not None  # there are two documents
    return ToolResult(
        tuple(_measurements(delta, deltas, nulls, places) + _beside(target, unit, plains, effects, chosen, sign)),
        {
            "bets": bets,
            "matched_tokens": [target.vocabulary.pieces[i] for i in matched],
            "nulls": nulls.round(6).tolist(),
            "documents": len(delta),
            "interval_90": list(interval),
        },
    )


def _measurements(delta: Array, arms: list[Array], nulls: Array, places: list[Places]) -> list[Measurement]:
    percentile = percentile_of(delta.mean(), nulls)
    total = Measurement(
        "delta", float(delta.mean()), "nats", len(delta), mean_interval(delta), float(np.median(nulls)), percentile
    )
    return [total] + [
        Measurement(f"delta_{p.arm}", float(arm.mean()), "nats", len(arm), mean_interval(arm))
        for p, arm in zip(places, arms, strict=True)
    ]


def _beside(
    target: TargetModel, unit: Unit, plains: list[Plain], effects: list[Tensor], chosen: Array, sign: float
) -> list[Measurement]:
    write = target.write_vector(unit)
    direct = [direct_effect(target, p, written(target, unit, p, write))[:, chosen].mean(dim=1) for p in plains]
    direct_values = sign * torch.cat(direct).numpy()
    plain = torch.cat([p.log_probs for p in plains])
    moved = torch.cat([e if p.places.arm == "add" else -e for p, e in zip(plains, effects, strict=True)])
    share = kl_share(plain, plain + moved, torch.from_numpy(chosen))
    n = len(direct_values)
    return [
        Measurement("delta_direct", float(direct_values.mean()), "nats", n, mean_interval(direct_values)),
        Measurement("kl_share", share, "share of the KL", n),
    ]
