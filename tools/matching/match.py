"""The tool `match_units`: which neurons of the model have a neuron in another model, or in another layer, that does the same."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from neuronaut.tools.corpus import Document
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.figures import Axes, Figure, heat_map
from neuronaut.tools.matching.align import chunks
from neuronaut.tools.matching.moments import Moments
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import clopper_pearson
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.checks import check_layer
from neuronaut.tools.targets.others import OtherModel
from neuronaut.tools.targets.sites import neuron_sites, unit_at
from neuronaut.tools.targets.twins import twin_folder
from neuronaut.tools.units import Unit

MIN_R = 0.5  # a partner shares a quarter of the variance at least
MIN_EXCESS = 0.1  # above the best that chance finds for the same unit
FDR = 0.05
LEAST_SHARE, LEAST_PLACES = 0.1, 1_000  # of the tokens that end where one of the other model's does
MOST_CELLS = 1 << 26  # pairs of units
SAMPLED = 200  # matches that are tested on other text

Floats = NDArray[np.float32]


class MatchUnitsArgs(ToolArgs):
    """others: names of registered models; none: the layers of the model itself. layers, other_layers: of the one side and the
    other, all where none is named. k: pairs that are listed."""

    example: ClassVar = {"layers": [2], "other_layers": [3, 4], "n_tokens": 2000, "k": 5}
    others: tuple[str, ...] = Field(default=(), max_length=8)
    layers: tuple[int, ...] = Field(default=(), max_length=512)
    other_layers: tuple[int, ...] = Field(default=(), max_length=512)
    n_tokens: int = Field(default=16_384, ge=1_000, le=1_000_000)
    k: int = Field(default=20, ge=1, le=200)
    seed: int = Field(default=0, ge=0)


class Side(NamedTuple):
    """The neurons of some layers of a model, side by side."""

    model: TargetModel
    sites: tuple[Site, ...]

    @classmethod
    def of(cls, model: TargetModel, layers: Sequence[int]) -> "Side":
        """All layers where none is named. Refuses a layer that the model does not have."""
        spec = model.spec
        for layer in layers:
            check_layer(spec, layer)
        chosen = sorted(set(layers)) or range(spec.n_layers)
        return cls(model, tuple(site for layer in chosen for site in neuron_sites(spec, layer)))

    @property
    def width(self) -> int:
        """How many neurons there are."""
        return len(self.sites) * self.model.spec.d_mlp

    @property
    def layers(self) -> NDArray[np.int64]:
        """(width,) the layer of each."""
        return np.repeat([site.layer for site in self.sites], self.model.spec.d_mlp)

    def unit(self, at: int) -> Unit:
        """The neuron in a column."""
        site, index = divmod(at, self.model.spec.d_mlp)
        return unit_at(self.sites[site], index)


class Matched(NamedTuple):
    """Of each live unit of the first side: its best partner and its sign, the size of the correlation with it, the best that chance
    finds, whether that is a match, and whether the partner's best one is this unit. live: their columns."""

    live: NDArray[np.int64]
    partner: NDArray[np.int64]
    sign: NDArray[np.int64]
    r: Floats
    null: Floats
    matched: NDArray[np.bool_]
    mutual: NDArray[np.bool_]
    places: int
    tokens: int


@tool("match_units")
def match_units(context: ToolContext, args: MatchUnitsArgs) -> ToolResult:
    """Neurons whose activations go with those of one neuron of another model (another seed, another checkpoint), or of another layer.

    r: Pearson correlation over the tokens of explore text, by its size; a partner that falls where the unit rises has a trailing
    "-". Where tokenizers differ, tokens that end at the same character are compared. null, of each unit: the larger of its best
    correlations with random mixtures of each layer of the other model and with the neurons of an untrained twin of it (matrices drawn
    anew): both are offered as many candidates. matched: r of at least 0.5, at least 0.1 above the null, and beyond the excess at
    which of as many units as lie above it no more than 5 % lie as far below their null (knockoff+). universal: matched in all.
    Correlations are summed up in one pass; constant units are left out.
    Refuses: the model itself as the other one; tokenizers that cut text at too few common places; more than 67 million pairs.
    Sources: Gurnee et al. 2024, arXiv:2401.12181 (rotation baseline); Barber & Candès 2015, arXiv:1404.5609 (knockoff+).
    """
    first = Side.of(context.target, args.layers)
    documents = context.corpus.of("explore")
    others = [context.registered.other(name) for name in args.others]
    rows, found, figures = list[dict[str, Any]](), list[Matched](), list[Figure]()
    for other in list[OtherModel | None](others) or [None]:
        second = Side.of(context.target if other is None else _opened(context, other), args.other_layers)
        one = matched(first, second, documents, args, other)
        name = "other layers" if other is None else other.name
        rows.append(
            _row(name, first, second, one, args) | {"other_forwards": 0.0 if other is None else second.model.forwards}
        )
        found.append(one)
        figures.append(_drawn(name, first, second, one))
    universal = _universal(first, found)
    shares = [_share(row) for row in rows]
    payload = {"places": "tokens that end at the same character", "others": rows, "universal": universal[: 10 * args.k],
               "n_universal": len(universal), "of": len(found[0].live)}  # fmt: skip
    arrays = {f"{kind}_{row['other'].replace(' ', '_')}": getattr(one, kind)
              for row, one in zip(rows, found, strict=True) for kind in ("live", "partner", "r", "null", "matched")}  # fmt: skip
    return ToolResult(tuple(shares), payload, arrays, tuple(figures))


def _opened(context: ToolContext, other: OtherModel) -> TargetModel:
    if other.folder.weights_sha256 == context.target.fingerprint().weights_sha256:
        raise ToolRefused(
            f"{other.name} has the same weights as {context.target.spec.name}: every unit would match itself; name another model"
        )
    return other.target


def matched(
    first: Side, second: Side, documents: Sequence[Document], args: MatchUnitsArgs, other: OtherModel | None
) -> Matched:
    """The best partners of the units of one side among those of the other. other: None where both sides are one model, whose
    units have no partner in their own layer, and no twin as null."""
    if first.width * second.width > MOST_CELLS:
        raise ToolRefused(
            f"{first.width:,} by {second.width:,} units are more than {MOST_CELLS:,} pairs: name some layers and other_layers"
        )
    sums, places, tokens = _sums(first, second, documents, args.n_tokens)
    own = first.layers[:, None] == second.layers[None, :] if other is None else None
    signed = sums.correlations()
    real = _masked(signed.abs(), own)
    best = real.max(dim=1)
    signs = torch.where(signed.gather(1, best.indices[:, None])[:, 0] < 0, -1, 1)
    null = _masked(sums.rotated(args.seed).abs(), own).amax(dim=1)
    mutual = real.argmax(dim=0)[best.indices] == torch.arange(len(real))
    live = torch.nonzero(sums.deviations[0] > 0).flatten()
    del real, signed
    if other is not None:
        twin = replace(other, place=str(twin_folder(other.folder, "random-init", args.seed).path)).target
        untrained = Side(twin, second.sites)
        null = torch.maximum(
            null, _sums(first, untrained, documents, args.n_tokens)[0].correlations().abs().amax(dim=1)
        )
    r, chance = best.values[live].numpy(), null[live].numpy()
    partners, sign = best.indices[live].numpy(), signs[live].numpy()
    return Matched(live.numpy(), partners, sign, r, chance, _passing(r, chance), mutual[live].numpy(), places, tokens)


def _masked(values: Tensor, own: NDArray[np.bool_] | None) -> Tensor:
    return values if own is None else values.masked_fill_(torch.from_numpy(own), 0.0)


def _sums(first: Side, second: Side, documents: Sequence[Document], n_tokens: int) -> tuple[Moments, int, int]:
    """The sums of both sides on some text, with the places and the tokens of the first model that were read."""
    sums, tokens = Moments([second.model.spec.d_mlp] * len(second.sites)), 0
    for chunk in chunks(documents, (first.model, second.model), (first.sites, second.sites), n_tokens):
        if not bool(torch.isfinite(chunk.first).all() & torch.isfinite(chunk.second).all()):
            raise ToolFailed("one of the models has activations that are not finite on this text")
        sums.add(chunk.first, chunk.second)
        tokens += chunk.tokens
    if sums.n < LEAST_PLACES or sums.n < LEAST_SHARE * tokens:
        raise ToolRefused(
            f"only {sums.n} of {tokens} tokens end at a character where one of the other model's does: its tokenizer, or the text, does "
            "not fit, so that nothing can be compared"
        )
    return sums, sums.n, tokens


def _passing(r: Floats, null: Floats) -> NDArray[np.bool_]:
    """Which units have a match: see match_units."""
    excess = r - null
    for bar in np.sort(np.append(excess[excess > MIN_EXCESS], MIN_EXCESS)):
        if (1 + (excess <= -bar).sum()) <= FDR * max(1, int((excess >= bar).sum())):
            return np.asarray((excess >= bar) & (r >= MIN_R))
    return np.zeros(len(r), dtype=bool)


def _row(name: str, first: Side, second: Side, found: Matched, args: MatchUnitsArgs) -> dict[str, Any]:
    excess = found.r - found.null
    good = np.flatnonzero(found.matched)
    order = good[np.argsort(-excess[good], kind="stable")]
    rest = np.argsort(-excess, kind="stable")[: args.k] if not len(good) else order[: args.k]
    drawn = np.sort(np.random.default_rng(args.seed).permutation(order)[:SAMPLED])
    return {
        "other": name,
        "model": second.model.spec.name,
        "places": found.places,
        "tokens": found.tokens,
        "units": len(found.live),
        "constant": first.width - len(found.live),
        "matched": len(good),
        "mutual": int(found.mutual[good].sum()),
        "as_far_below": int((excess <= -(excess[good].min() if len(good) else MIN_EXCESS)).sum()),
        "least_excess": round(float(excess[good].min()), 4) if len(good) else None,
        "median_r": round(float(np.median(found.r)), 4),
        "median_null": round(float(np.median(found.null)), 4),
        "null_95": round(float(np.quantile(found.null, 0.95)), 4),
        "pairs": [_pair(first, second, found, at) for at in rest.tolist()],
        "sampled": [_pair(first, second, found, at) for at in drawn.tolist()],
        "layers": _layers(first, second, found),
    }


def _pair(first: Side, second: Side, found: Matched, at: int) -> dict[str, Any]:
    partner = second.unit(int(found.partner[at])).with_sign(1 if found.sign[at] > 0 else -1).address
    numbers = {"r": round(float(found.r[at]), 4), "null": round(float(found.null[at]), 4)}
    return (
        {"unit": first.unit(int(found.live[at])).address, "partner": partner}
        | numbers
        | {"mutual": bool(found.mutual[at])}
    )


def _layers(first: Side, second: Side, found: Matched) -> list[dict[str, Any]]:
    """Of each layer how many units are matched, and where most of their partners are."""
    mine, theirs = first.layers[found.live], second.layers[found.partner]
    rows = []
    for layer in np.unique(mine):
        here = mine == layer
        good = theirs[here & found.matched]
        row: dict[str, Any] = {"layer": int(layer), "units": int(here.sum()), "matched": len(good)}
        rows.append(row | {"partners_in": int(np.bincount(good).argmax()) if len(good) else None})
    return rows


def _share(row: dict[str, Any]) -> Measurement:
    n, of = row["matched"], row["units"]
    name = "matched" if row["other"] == "other layers" else f"matched_{row['other']}"
    ends, below = clopper_pearson(n, of) if of else None, row["as_far_below"] / max(of, 1)
    return Measurement(name, n / max(of, 1), "share of the units", of, ends, below, n_of="units")


def _universal(first: Side, found: Sequence[Matched]) -> list[str]:
    """The units that have a match in all others; of one other the question does not arise."""
    if len(found) < 2:
        return []
    sets = [set(one.live[one.matched].tolist()) for one in found]
    return [first.unit(at).address for at in sorted(set.intersection(*sets))]


def _drawn(name: str, first: Side, second: Side, found: Matched) -> Figure:
    mine, theirs = first.layers[found.live][found.matched], second.layers[found.partner][found.matched]
    rows, columns = np.unique(first.layers), np.unique(second.layers)
    grid = np.zeros((len(rows), len(columns)))
    np.add.at(grid, (np.searchsorted(rows, mine), np.searchsorted(columns, theirs)), 1)
    axes = Axes(f"Matches with {name}, by layer", f"layer of {name}", "layer", "units")
    safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return heat_map(
        f"matches_{safe}", grid, [str(row) for row in rows], [str(one) for one in columns], axes, rising=True
    )
