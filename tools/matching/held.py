"""The tool `test_matches`: pairs of units that were matched, on text that the search did not read."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.matching.align import chunks
from neuronaut.tools.matching.match import LEAST_PLACES, MIN_R
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import clopper_pearson
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import site_of
from neuronaut.tools.units import Unit

PARTS = 20  # of the documents, each left out in turn


class TestMatchesArgs(ToolArgs):
    """other: the name of a registered model, "" for the model itself. units, partners: addresses, pair by pair; bars: the best
    correlation that chance found for each unit."""

    example: ClassVar = {}
    other: str = ""
    units: tuple[str, ...] = Field(min_length=1, max_length=2_000)
    partners: tuple[str, ...] = Field(min_length=1, max_length=2_000)
    bars: tuple[float, ...] = Field(min_length=1, max_length=2_000)
    n_tokens: int = Field(default=16_384, ge=1_000, le=500_000)
    seed: int = Field(default=0, ge=0)


@tool("test_matches", opens_test_text=True)
def test_matches(context: ToolContext, args: TestMatchesArgs) -> ToolResult:
    """The correlations of matched pairs, signs applied, on design text, which the search does not read, beside the same units with
    each other's partners.

    holds: r of at least 0.5, and above the best that chance found for the unit: fixed before this text is opened. interval: 95 %, by
    leaving out a twentieth of the documents at a time. Null: the share of pairs that hold when partners are exchanged at random.
    """
    n = len(args.units)
    if not len(args.partners) == len(args.bars) == n:
        raise ToolRefused(f"{n} units need as many partners and bars, not {len(args.partners)} and {len(args.bars)}")
    own, exchanged = _sums(context, args)
    if (places := int(own[:, 0, 0].sum())) < LEAST_PLACES:
        raise ToolRefused(f"design text holds only {places} places that both models read: give more text")
    r, null, bars = _r(own.sum(axis=0)), _r(exchanged.sum(axis=0)), np.array(args.bars)
    holds, by_chance = (r >= MIN_R) & (r > bars), (null >= MIN_R) & (null > bars)
    ends = np.clip(r + 1.96 * np.outer([-1, 1], _error(own)), -1, 1).round(4).T.tolist()
    rows: list[dict[str, Any]] = [
        {"unit": unit, "partner": partner, "r": round(float(value), 4), "holds": bool(ok), "interval": both}
        for unit, partner, value, ok, both in zip(args.units, args.partners, r, holds, ends, strict=True)
    ]
    measured = Measurement(
        "holds", float(holds.mean()), "share of the pairs", n, clopper_pearson(int(holds.sum()), n),
        float(by_chance.mean()), n_of="pairs",
    )  # fmt: skip
    medians = {"median_r": round(float(np.median(r)), 4), "median_exchanged": round(float(np.median(null)), 4)}
    counts = {"places": places, "holding": int(holds.sum()), "exchanged": int(by_chance.sum())}
    return ToolResult((measured,), {"other": args.other, "n": n, "pairs": rows} | medians | counts)


def _columns(model: TargetModel, names: tuple[str, ...]) -> tuple[list[Site], NDArray[np.int64], NDArray[np.float64]]:
    """The sites of some neurons, where each stands among them side by side, and its sign."""
    units = [Unit.parse(name) for name in names]
    for unit in units:
        check_unit(model.spec, unit, model.dictionaries)
        if unit.kind != "neuron":
            raise ToolRefused(f"{unit.address} is a {unit.kind}: only neurons are matched")
    sites = list(dict.fromkeys(site_of(model, unit) for unit in units))
    at = [sites.index(site_of(model, unit)) * model.spec.d_mlp + unit.index for unit in units]
    return sites, np.array(at), np.array([float(unit.sign) for unit in units])


def _sums(context: ToolContext, args: TestMatchesArgs) -> NDArray[np.float64]:
    """(2, PARTS, 6, n) what `_r` needs of each part of the documents, of the pairs and of the units with each other's partners."""
    other = context.registered.other(args.other).target if args.other else context.target
    (mine, at, sign), (theirs, there, turned) = _columns(context.target, args.units), _columns(other, args.partners)
    mixed = np.random.default_rng(args.seed).permutation(len(args.units))
    found = np.zeros((2, PARTS, 6, len(args.units)))
    for chunk in chunks(context.corpus.of("design"), (context.target, other), (mine, theirs), args.n_tokens):
        x = sign * chunk.first[:, at].double().numpy()
        y = turned * chunk.second[:, there].double().numpy()
        for part in range(PARTS):
            here = chunk.groups % PARTS == part
            for sums, partners in zip(found, (y[here], y[here][:, mixed]), strict=True):
                sums[part] += _moments(x[here], partners)
    return found


def _error(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) standard error of r by the jackknife over parts of the documents; sums: (PARTS, 6, n)."""
    left = np.stack([_r(sums.sum(axis=0) - part) for part in sums])
    return np.asarray(np.sqrt((PARTS - 1) / PARTS * np.square(left - left.mean(axis=0)).sum(axis=0)))


def _moments(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(6, n) count, sums, sums of squares and of products."""
    return np.stack(
        [np.full(x.shape[1], float(len(x))), x.sum(0), y.sum(0), (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)]
    )


def _r(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) Pearson correlations, 0 where either unit is constant; sums: (6, n)."""
    n, x, y, xx, yy, xy = sums
    size = np.sqrt(np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0))
    return np.divide(xy - x * y / n, size, out=np.zeros_like(xy), where=size > 1e-12)
