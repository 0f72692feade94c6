"""The numbers of an index as columns, one row a unit."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.kinds.features import Features, FeatureSummary, active_edges
from neuronaut.tools.kinds.heads import Heads, HeadSummary
from neuronaut.tools.kinds.neurons import Neurons
from neuronaut.tools.kinds.values import ValueSummary
from neuronaut.tools.look.attention import LOOKS
from neuronaut.tools.look.head_attention import STRONGEST
from neuronaut.tools.summaries import bin_edges, quantiles_of, values_in
from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.sites import unit_at
from neuronaut.tools.units import Unit

if TYPE_CHECKING:
    from neuronaut.tools.index import Index
    from neuronaut.tools.index_plan import KindName

Columns = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
TOP_DOCUMENTS = 20


def table_of(index: "Index", kind: "KindName") -> Columns:
    """Columns of all units of a kind, by layer and number. Refuses a kind that the index does not hold.

    address, layer, index, dictionary (features alone). density: share of explore tokens above 0 (heads: of queries).
    max, mean, variance: over tokens. active_documents: documents with a token above 0. top: the median of the 20 largest
    document maxima. threshold: half way from the median token (features: from 0) to the top; heads: 0.3 of a query's attention.
    firing: share of tokens above the threshold, estimated from histograms. dead: no token is above 0; a head that gives no key
    beside the first a tenth of its attention. Heads, whose values are the largest attention off the first token: also
    previous, current, first, duplicate, induction, start, entropy, distance; see `kinds.heads.Heads`.
    """
    own = {"neurons": Neurons, "heads": Heads, "features": Features}[kind]
    parts = sorted((one for one in index.kinds if isinstance(one, own)), key=lambda one: (one.layer, one.name))
    if not parts:
        raise ToolRefused(f"the index holds no {kind}: run `neuronaut index build --kinds {kind}`")
    found = [_names(part) | _numbers(index.summary(part)) for part in parts]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _names(part: Any) -> Columns:
    numbers = np.arange(part.width)
    if isinstance(part, Features):
        units = [Unit.of_feature(part.dictionary, number) for number in range(part.width)]
    else:
        site = Site("heads", part.layer) if isinstance(part, Heads) else part.sites[0]
        units = [unit_at(site, n) for n in range(part.width)]
    found: Columns = {
        "address": np.array([unit.address for unit in units]),
        "layer": np.full(part.width, part.layer),
        "index": numbers,
    }
    return found | ({"dictionary": np.full(part.width, part.dictionary)} if isinstance(part, Features) else {})


def _numbers(summary: Any) -> Columns:
    match summary:
        case FeatureSummary():
            return _of_features(summary)
        case HeadSummary():
            found = _of_values(summary.values, threshold=LOOKS)
            return found | {"dead": found["max"] < STRONGEST} | summary.means
        case _:
            return _of_values(summary)


def _of_values(summary: ValueSummary, threshold: float | None = None) -> Columns:
    keys = summary.largest.keys[0]
    maxima = values_in(keys).astype(np.float64)
    top = _top(maxima)
    least = -values_in(summary.largest.keys[1, :, 0]).astype(np.float64) if len(summary.largest.keys) > 1 else 0 * top
    if threshold is None:
        half = np.array([0.5])
        extremes = zip(summary.counts, least.tolist(), maxima[:, 0].tolist(), strict=True)
        median = np.array([quantiles_of(counts, half, low, high)[0] for counts, low, high in extremes])
        thresholds = median + 0.5 * (top - median)
    else:
        thresholds = np.full(len(top), threshold)
    above = _above(summary.counts, bin_edges(), thresholds) / max(1, int(summary.n_binned))
    return _columns(summary, maxima, thresholds, above, summary.active[0], summary.active_documents[0])


def _of_features(summary: FeatureSummary) -> Columns:
    maxima = np.maximum(values_in(summary.largest.keys).astype(np.float64), 0.0)
    thresholds = 0.5 * _top(values_in(summary.largest.keys).astype(np.float64))
    firing = _above(summary.counts, active_edges(), thresholds) / max(1, int(summary.n))
    return _columns(summary, maxima, thresholds, firing, summary.active, summary.active_documents)


def _columns(
    summary: Any,
    maxima: Floats,
    thresholds: Floats,
    firing: Floats,
    active: NDArray[np.int64],
    documents: NDArray[np.int64],
) -> Columns:
    return {
        "density": active / max(1, int(summary.n)),
        "firing": np.where(active > 0, firing, 0.0),
        "threshold": thresholds,
        "max": maxima[:, 0],
        "top": _top(maxima),
        "mean": summary.mean,
        "variance": summary.variance,
        "active_documents": documents,
        "dead": active == 0,
    }


def _top(maxima: Floats) -> Floats:
    """(n_units,) median of the largest document maxima that there are, 0 of none; maxima: falling, -inf where there is none."""
    best = maxima[:, :TOP_DOCUMENTS]
    known = np.where(np.isfinite(best), best, np.nan)
    known[np.isnan(known).all(axis=1)] = 0.0
    return np.asarray(np.nanmedian(known, axis=1))


def _above(counts: NDArray[np.int64], edges: Floats, thresholds: Floats) -> Floats:
    """(n_units,) how many values of a histogram lie above a threshold, linear inside a bin; the outermost bins count as whole."""
    at = np.clip(np.searchsorted(edges, thresholds, side="right") - 1, 0, counts.shape[1] - 1)
    rest = np.concatenate([np.cumsum(counts[:, ::-1], axis=1)[:, ::-1], np.zeros((len(counts), 1))], axis=1)
    low, high, rows = edges[at], edges[at + 1], np.arange(len(at))
    width = high - low
    whole = np.isfinite(width) & (width > 0)
    inside = np.where(whole, (high - thresholds) / np.where(whole, width, 1.0), 0.0)
    return np.asarray(rest[rows, at + 1] + np.clip(inside, 0, 1) * counts[rows, at])
