"""Whether two units do the same job: what the model loses when each carries what the other carries."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, assert_never

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene.next_token import divergence, residual_before, text_batches
from neuronaut.tools.intervene.outcomes import Change
from neuronaut.tools.intervene.parts import Part, Places, places_of, values_at
from neuronaut.tools.intervene.strength import written
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import document_weights, mean_interval, percentile_interval, percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import width_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

N_NULLS = 16
LEAST_KL = 1e-8  # nats a token; less is rounding, and no share of it means anything
Fit = Literal["raw", "statistics", "fitted"]


class SwapArgs(ToolArgs):
    """Two neurons or two heads, and how the activation of one is made one of the other.

    scale: `raw` puts it in as it is; `statistics` gives it mean and standard deviation of the place that it takes (of each
    component, for heads); `fitted` maps it there by least squares, so that it counts what the one knows of the other.
    n_tokens: of explore text; the first half of the documents gives statistics and maps, the others are measured.
    """

    example: ClassVar = {"unit": "8.481", "other": "8.480", "n_tokens": 600}
    unit: str
    other: str
    scale: Fit = "statistics"
    n_tokens: int = Field(default=2000, ge=200, le=100_000)
    seed: int = 0


class Kept(NamedTuple):
    """Activations of a unit at the places of the texts that give statistics, (n, d), and of those that are measured,
    (n_texts, m, d)."""

    known: Tensor
    here: Tensor


def mapped(source: Kept, place: Kept, scale: Fit) -> Tensor:
    """(n_texts, m, d) the activations of one unit, as they are put in the place of another."""
    match scale:
        case "raw":
            return source.here
        case "statistics":
            (mean, spread), (into, wide) = ((one.known.mean(dim=0), one.known.std(dim=0)) for one in (source, place))
            return (source.here - mean) * torch.where(spread > 0, wide / spread.clamp(min=1e-30), 0.0) + into
        case "fitted":
            ones = torch.ones(len(source.known), 1, dtype=torch.float64)
            design = torch.cat([source.known.double(), ones], dim=1)
            found = torch.linalg.lstsq(design, place.known.double(), driver="gelsd").solution
            return (source.here.double() @ found[:-1] + found[-1]).float()
        case _ as never:
            assert_never(never)


@dataclass(frozen=True)
class Swaps:
    """The measured texts, their places, and the activations of all units that take part."""

    target: TargetModel
    tokens: Tokens
    places: Places
    kept: dict[Part, Kept]
    scale: Fit

    def changes(self, pairs: Sequence[tuple[Part, Part]]) -> list[Change]:
        """For each pair, that the first part carries what the second one carries."""
        return [Change(place, mapped(self.kept[source], self.kept[place], self.scale)) for place, source in pairs]

    def written(self, changes: Sequence[Change]) -> float:
        """Root mean square length of what the changes add to the residual stream at a token, summed over layers."""
        found: dict[Any, Tensor] = {}
        for change in changes:
            [added] = written(self.target, self.tokens, self.places, [change])
            found[change.out] = found.get(change.out, 0) + added
        known = self.places.columns >= 0
        return float(sum(added.square().sum(dim=-1)[known].mean() for added in found.values()) ** 0.5)

    def of_size(self, changes: Sequence[Change], size: float) -> list[Change]:
        """The changes, stretched until they write as much as `size`."""
        ratio = size / max(self.written(changes), 1e-30)
        natural = [self.kept[change.part].here for change in changes]
        return [
            Change(change.part, here + ratio * (change.values - here))
            for change, here in zip(changes, natural, strict=True)
        ]

    def damage(self, sets: Sequence[Sequence[Change]]) -> tuple[Array, Array]:
        """KL(plain ‖ changed) and rise of the loss, both (n_sets, n_documents) in nats a token, with each set made alone."""
        target, scored = self.target, torch.from_numpy(self.tokens.scored)
        sums = torch.zeros(2, len(sets), len(self.tokens), dtype=torch.float64)
        layer = min(change.layer for changes in sets for change in changes)
        for rows, part in text_batches(target, self.tokens):
            chosen, ids, width = torch.from_numpy(rows), to_ids(part), part.ids.shape[1]
            here, start = Places(self.places.columns[chosen], width), residual_before(target, ids, layer)
            at, following = scored[chosen, :width], scored[chosen, 1:width]
            plain = _log_probs(target.run(ids, start=start, logits=True).logits)
            own = plain[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
            for number, changes in enumerate(sets):
                edits = [change.edit(chosen, here) for change in changes]
                found = _log_probs(target.run(ids, edits=edits, start=start, logits=True).logits)
                kl = divergence(plain, found)
                rise = own - found[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
                sums[0, number, chosen] = (kl * at).double().sum(dim=1)
                sums[1, number, chosen] = (rise * following).double().sum(dim=1)
        _, document = np.unique(self.tokens.documents, return_inverse=True)
        known = self.tokens.scored
        kls, rises = (
            np.stack([np.bincount(document, weights=row) for row in one]) / np.bincount(document, weights=n)
            for one, n in zip(sums.numpy(), (known.sum(axis=1), known[:, 1:].sum(axis=1)), strict=True)
        )
        return kls, rises


def _log_probs(logits: Tensor | None) -> Tensor:
    assert logits is not None
    found = torch.log_softmax(logits.float(), dim=-1)
    if not bool(torch.isfinite(found).all()):
        raise ToolFailed("the model with swapped units gives logits that are not finite")
    return found


@tool("swap_units")
def swap_units(context: ToolContext, args: SwapArgs) -> ToolResult:
    """How well two units stand in for each other: what the model loses when each carries the other's activations.

    The activations are those of the plain run. kl: KL(plain ‖ swapped) in nats a token of explore text, mean over
    documents; null: random pairs of the units' layers whose swap writes as much to the residual stream. loss_rise: the same
    of the loss. interchangeability: 1 − kl / the median of kl when each carries a random unit of the other's layer instead; 1 is the same
    job, 0 no better than chance, below 0 worse; left out where nothing is lost then either.
    Refuses units of different kinds, and a unit with itself. Heads have no common basis: raw values tell of copies only.
    """
    target, (unit, other) = context.target, _pair(context.target, args)
    rng = np.random.default_rng(args.seed)
    a, b = Part.of(target, unit), Part.of(target, other)
    for_a, for_b = (_strangers(target, place, (a, b), rng) for place in (b, a))
    pairs = _random_pairs(for_b, for_a, rng)
    for_a, for_b = for_a[:N_NULLS], for_b[:N_NULLS]
    swaps = _swaps(context, args, list(dict.fromkeys([a, b, *for_a, *for_b, *itertools.chain(*pairs)])))
    own = swaps.changes([(a, b), (b, a)])
    size = swaps.written(own)
    strangers = [swaps.changes([(a, c), (b, d)]) for c, d in zip(for_a, for_b, strict=False)]
    alike = [swaps.of_size(swaps.changes([(c, d), (d, c)]), size) for c, d in pairs]
    kl, rise = swaps.damage([own, *strangers, *alike])
    n = len(strangers)
    measured = [_beside("kl", kl, n), _beside("loss_rise", rise, n)]
    if n and float(np.median(kl[1 : 1 + n].mean(axis=1))) > LEAST_KL:
        measured.insert(0, _interchangeability(kl[: 1 + n], args.seed))
    known = swaps.places.columns >= 0
    payload: dict[str, Any] = {"unit": unit.address, "other": other.address, "scale": args.scale, "written": size}
    if a.is_number:
        both = torch.stack([swaps.kept[part].here[known][:, 0] for part in (a, b)])
        writes = torch.stack([target.write_vector(one) for one in (unit, other)])
        correlation = float(torch.corrcoef(both)[0, 1]) if bool((both.std(dim=1) > 0).all()) else None
        payload |= {
            "correlation": correlation,
            "cos_write": float(torch.nn.functional.cosine_similarity(writes[0], writes[1], dim=0)),
        }
    payload |= {
        "kl_strangers": kl[1 : 1 + n].mean(axis=1).tolist(),
        "kl_random_pairs": kl[1 + n :].mean(axis=1).tolist(),
    }
    return ToolResult(tuple(measured), payload)


def _pair(target: TargetModel, args: SwapArgs) -> tuple[Unit, Unit]:
    unit, other = Unit.parse(args.unit), Unit.parse(args.other)
    for one in (unit, other):
        check_unit(target.spec, one, target.dictionaries)
    if unit.kind != other.kind:
        raise ToolRefused(f"{unit.address} is a {unit.kind} and {other.address} a {other.kind}: give two of one kind")
    if unit.with_sign(1) == other.with_sign(1):
        raise ToolRefused(f"{unit.address} is given twice: a unit always stands in for itself, so name two")
    return unit, other


def _strangers(target: TargetModel, like: Part, left_out: tuple[Part, Part], rng: np.random.Generator) -> list[Part]:
    """The parts of the layer of `like` in random order, the pair itself left out."""
    width = width_of(target, like.site)
    others = [part for i in range(width) if (part := replace(like, index=i)) not in left_out]
    return [others[i] for i in rng.permutation(len(others))]


def _random_pairs(first: list[Part], second: list[Part], rng: np.random.Generator) -> list[tuple[Part, Part]]:
    """At most `N_NULLS` pairs of different parts, one of each list, no pair twice."""
    if not first or not second:
        return []
    drawn = rng.integers((len(first), len(second)), size=(20 * N_NULLS, 2)).tolist()
    found = {frozenset((first[i], second[j])): (first[i], second[j]) for i, j in drawn if first[i] != second[j]}
    return list(found.values())[:N_NULLS]


def _swaps(context: ToolContext, args: SwapArgs, parts: list[Part]) -> Swaps:
    """Explore text in two halves by document, with the activations of the parts. Refuses text of one document."""
    target, tokens = context.target, context.sample("explore", args.n_tokens)
    documents = np.unique(tokens.documents)
    if len(documents) < 4:
        raise ToolRefused(
            f"{args.n_tokens} tokens of explore text are {len(documents)} documents: take more, at least 4 are needed"
        )
    known = np.isin(tokens.documents, documents[: len(documents) // 2])
    halves = [tokens.select(np.flatnonzero(known)), tokens.select(np.flatnonzero(~known))]
    places = [places_of(target, half, "all") for half in halves]
    first, second = (values_at(target, half, parts, at) for half, at in zip(halves, places, strict=True))
    there = places[0].columns >= 0
    kept = {part: Kept(one[there], two) for part, one, two in zip(parts, first, second, strict=True)}
    return Swaps(target, halves[1], places[1], kept, args.scale)


def _beside(metric: str, values: Array, n_strangers: int) -> Measurement:
    """The first row beside random pairs, which come behind the strangers; (n_sets, n_documents)."""
    own, pairs = values[0], values[1 + n_strangers :].mean(axis=1)
    return Measurement(
        metric,
        float(own.mean()),
        "nats per token",
        len(own),
        mean_interval(own),
        float(pairs.mean()) if len(pairs) else None,
        percentile_of(own.mean(), pairs) if len(pairs) else None,
    )


def _interchangeability(kl: Array, seed: int) -> Measurement:
    """Of the first row beside the median of the strangers behind it, (n_sets, n_documents); the interval is over documents."""
    weights = document_weights(kl.shape[1], seed)
    means, drawn = kl.mean(axis=1), weights @ kl.T / kl.shape[1]
    chance = float(np.median(means[1:]))
    shares = 1 - drawn[:, 0] / np.maximum(np.median(drawn[:, 1:], axis=1), LEAST_KL)
    worse = float((means[1:] > means[0]).mean() * 100)
    value = float(1 - means[0] / chance)
    return Measurement("interchangeability", value, "share", kl.shape[1], percentile_interval(shares), 0.0, worse)
