"""When does a neuron fire: its firing rule, predicates compared on design text, and the registered test on confirm text."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.pairs import Bets, run_pairs
from neuronaut.tools.look.activations import layer_activations
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import (
    Counts,
    FiringRule,
    ReadScores,
    agreement,
    compare_f1,
    count,
    f1_of,
    fast_f1,
    firing_rule,
    score_reads,
)
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.edits import Source, draw_pairs
from neuronaut.tools.predicates.evaluate import holds, strength
from neuronaut.tools.predicates.nodes import Predicate, complexity, leaves, predicate_from_json
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import Ranking
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.writes import unigram
from neuronaut.tools.units import Unit

N_RANDOM_UNITS = 32
N_NULL_DRAWS = 20
PAIRS_A_LEAF = 80


class UnitArgs(ToolArgs):
    """Which neuron; a trailing `-` asks about its downward side."""

    unit: str


class TestReadsArgs(UnitArgs):
    """The registered claim and its rivals (JSON), and the confirm block that is opened."""

    claim: str
    rivals: tuple[str, ...] = Field(default=(), max_length=16)
    block: int = Field(ge=0, le=2)
    seed: int = 0


def rule_of(context: ToolContext, unit: Unit) -> FiringRule | str:
    """The firing rule from the explore sample, or why there is none."""
    check_unit(context.target.spec, unit)
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    return firing_rule(activations, context.sample("explore", EXPLORE_TOKENS))


def needed_rule(context: ToolContext, unit: Unit) -> FiringRule:
    """The firing rule from the explore sample; ToolRefused where there is none."""
    rule = rule_of(context, unit)
    if isinstance(rule, str):
        raise ToolRefused(f"{unit.address}: {rule}")
    return rule


@tool("firing")
def firing(context: ToolContext, args: UnitArgs) -> ToolResult:
    """When the neuron counts as firing: above t = median + (top − median) / 2 on explore text, top the median of its 20
    largest document maxima. base_rate: share of explore tokens at which it fires.

    payload.abstained says why there is no such rule (too rare here, this side does not exist).
    special_token: it is larger on a special token than its top; special tokens are left out of search and scores.
    """
    unit = Unit.parse(args.unit)
    tokens = context.sample("explore", EXPLORE_TOKENS)
    rule = rule_of(context, unit)
    if isinstance(rule, str):
        return ToolResult(payload={"unit": unit.address, "abstained": rule})
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    special = (tokens.ids >= 0) & ~tokens.scored
    rate = float((activations[tokens.scored] > rule.threshold).mean())
    larger = bool(special.any() and activations[special].max() > rule.top)
    n = len(np.unique(tokens.documents))
    payload = {"unit": unit.address, "rule": asdict(rule), "special_token": larger, "explore_tokens": tokens.n_scored}
    return ToolResult((Measurement("base_rate", rate, "share of tokens", n),), payload)


def edit_source(target: TargetModel, tokens: Tokens, share: Array) -> Source:
    """What edits of this text are made from: unigram shares and the target's own next-token distribution."""

    def next_tokens(ids: Array, positions: Array) -> Array:
        found = np.empty((len(ids), target.spec.d_vocab))
        for at in range(0, len(ids), 64):
            part = torch.from_numpy(ids[at : at + 64])
            logits = target.run(part, logits=True).logits
            assert logits is not None
            before = torch.from_numpy(np.maximum(positions[at : at + 64] - 1, 0))
            found[at : at + 64] = torch.softmax(logits[torch.arange(len(part)), before].double(), dim=-1).numpy()
        return found

    def survives(rows: Sequence[tuple[int, ...]]) -> list[bool]:
        back = target.tokenize([target.decode(row) for row in rows])
        windows: dict[int, list[tuple[int, ...]]] = {}
        for window, document in enumerate(back.documents):
            windows.setdefault(int(document), []).append(tuple(int(i) for i in back.ids[window] if i >= 0))
        return [windows.get(i) == [tuple(row)] for i, row in enumerate(rows)]

    return Source(tokens, share, next_tokens, survives, target.spec.n_ctx)


def _ap_null(predicates: Sequence[Predicate], activations: Array, tokens: Tokens, seed: int) -> float:
    """95th percentile over null units of the best AP among the k predicates: the unit's activations, moved to other windows."""
    rng = np.random.default_rng(seed)
    masks = np.stack([holds(p, tokens)[tokens.scored] for p in predicates])
    ranking, best = Ranking(activations[tokens.scored].astype(np.float64)), []
    for _ in range(N_NULL_DRAWS):
        moved = np.roll(masks, -int(rng.integers(200, max(201, tokens.n_scored - 200))), axis=1)
        best.append(max(map(ranking.average_precision, moved)))
    return float(np.quantile(best, 0.95))


def _random_units(context: ToolContext, unit: Unit, claim: Predicate, tokens: Tokens, seed: int) -> Array:
    """(n,) F1 of the claim for other neurons of the layer, each with its own firing rule."""
    others = [i for i in range(context.target.spec.d_mlp) if i != unit.index]
    chosen = np.sort(np.random.default_rng(seed).permutation(others)[:N_RANDOM_UNITS])
    values = unit.sign * layer_activations(context.target, unit.layer, chosen, tokens)
    held, found = holds(claim, tokens)[tokens.scored], []
    for activations in values:
        rule = firing_rule(activations, tokens)
        if isinstance(rule, str):
            found.append(0.0)
            continue
        flat = activations[tokens.scored].astype(np.float64)
        fires = flat > rule.threshold
        found.append(float(fast_f1(held[None], fires, np.where(fires, flat - rule.median, 0.0))[0]))
    return np.array(found)


def _rarer_half(claim: Predicate, counts: Counts, activations: Array, tokens: Tokens, rule: FiringRule) -> float | None:
    """Precision of the rarer half of the tokens or words that the claim names; None for at most 5 items."""
    named = [p for p in nodes.walk(claim) if isinstance(p, (nodes.Token, nodes.Word)) and len(p.any_of) > 1]
    if complexity(claim) <= 5 or not named:
        return None
    largest = max(named, key=lambda p: len(p.any_of))
    frequency = {s: int(holds(type(largest)(any_of=(s,)), tokens).sum()) for s in largest.any_of}
    rarer = tuple(sorted(largest.any_of, key=lambda s: frequency[s])[: len(largest.any_of) // 2])
    smaller = _replaced(claim, largest, type(largest)(any_of=rarer))
    half = count(holds(smaller, tokens), activations, tokens, rule)
    held = float(half.held.sum())
    return float(half.both.sum() / held) if held else None


def _replaced(predicate: Predicate, old: Predicate, new: Predicate) -> Predicate:
    if predicate == old:
        return new
    match predicate:
        case nodes.AllOf() | nodes.AnyOf():
            return type(predicate)(of=tuple(_replaced(part, old, new) for part in predicate.of))
        case nodes.At() | nodes.Within() | nodes.Not():
            return predicate.model_copy(update={"inner": _replaced(predicate.inner, old, new)})
        case nodes.Since():
            update = {"inner": _replaced(predicate.inner, old, new), "last": _replaced(predicate.last, old, new)}
            return predicate.model_copy(update=update)
        case _:
            return predicate


@tool("test_reads", opens_test_text=True)
def test_reads(context: ToolContext, args: TestReadsArgs) -> ToolResult:
    """The registered test of a reads claim on one confirm block: scores at the natural base rate with intervals by document,
    pairs of edits, rivals on the same text, random units of the layer, the best of null units.

    f1: harmonic mean of precision and coverage, in [0, 1]; its null is the claim's F1 on other neurons of the layer.
    """
    unit, claim = Unit.parse(args.unit), predicate_from_json(args.claim)
    rivals = [predicate_from_json(source) for source in args.rivals]
    rule = needed_rule(context, unit)
    tokens = context.tokens("confirm", args.block)
    activations = context.activations(unit, "confirm", block=args.block)
    scores = score_reads(strength(claim, tokens), activations, tokens, rule, seed=args.seed)
    source = edit_source(context.target, tokens, unigram(context))
    draw = draw_pairs(claim, source, limit=PAIRS_A_LEAF)
    bets = run_pairs(context.target, unit, draw.pairs, rule)
    others = _random_units(context, unit, claim, tokens, args.seed)
    f1 = scores.measurements["f1"]
    measured = dict(scores.measurements)
    measured["f1"] = Measurement(
        "f1", f1.value, f1.unit, f1.n, f1.ci, float(np.median(others)), float((others < f1.value).mean() * 100)
    )
    e = Measurement("e", min(bets.e, 1e300), "e-value", len(bets.scores), null_value=1.0)
    payload = {
        "places": int(scores.counts.held.sum()),
        "dense": bool(scores.counts.fired.sum() / scores.counts.places.sum() > 0.25),
        "precision_low": scores.precision_low,
        "coverage_low": scores.coverage_low,
        "r_low": scores.r_low,
        "ap_null": _ap_null([claim, *rivals], activations, tokens, args.seed),
        "rarer_half_precision": _rarer_half(claim, scores.counts, activations, tokens, rule),
        "pairs": {"bets": list(bets.scores), "wins": bets.wins, "discordant": bets.discordant, "pairs": bets.pairs,
                  "documents": len(bets.scores), "discarded": draw.discarded},
        "leaf_e": {str(leaves(claim)[i]): min(value, 1e300) for i, value in bets.leaf_e.items()},
        "rivals": [_rival(claim, rival, scores, bets, activations, tokens, rule) for rival in rivals],
        "unexplained": unexplained(claim, activations, tokens, rule),
    }  # fmt: skip
    return ToolResult((*measured.values(), e), payload)


def _rival(
    claim: Predicate,
    rival: Predicate,
    scores: ReadScores,
    bets: Bets,
    activations: Array,
    tokens: Tokens,
    rule: FiringRule,
) -> dict[str, Any]:
    counts = count(holds(rival, tokens), activations, tokens, rule)
    difference, low, high = compare_f1(scores.counts, counts)
    of_rival = set(nodes.walk(rival))
    lacked = [bets.leaf_e[i] for i, leaf in enumerate(leaves(claim)) if leaf not in of_rival and i in bets.leaf_e]
    return {
        "predicate": nodes.canonical_json(rival),
        "complexity": complexity(rival),
        "f1": f1_of(counts),
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "agreement": agreement(holds(claim, tokens), holds(rival, tokens)),
        "lacked_leaf_e": min(max(lacked), 1e300) if lacked else None,
    }


def unexplained(
    claim: Predicate, activations: Array, tokens: Tokens, rule: FiringRule, *, k: int = 3
) -> dict[str, Any]:
    """The share of the firing mass outside the claim; of the places, the tokens that hold most of it."""
    flat = np.where(tokens.scored & (activations > rule.threshold), activations - rule.median, 0.0)
    outside = np.where(holds(claim, tokens), 0.0, flat)
    total = float(flat.sum())
    by_token = np.bincount(tokens.ids[outside > 0], weights=outside[outside > 0], minlength=1)
    top = [int(i) for i in np.argsort(-by_token)[:k] if by_token[i] > 0]
    share = float(outside.sum() / total) if total else 0.0
    return {"share": share, "tokens": [tokens.vocabulary.pieces[i] for i in top]}
