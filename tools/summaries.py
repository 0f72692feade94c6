"""Statistics of many neurons that can be merged: largest documents, moments, counts, histograms, a sample of tokens."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

STEPS = 16  # bins per doubling: neighbouring edges differ by at most 1/16
LOW, HIGH = -10, 10  # powers of two between which bins are logarithmic; below 2^-10 one bin a sign
_BASE = (127 + LOW) * STEPS  # a float32's exponent and first four mantissa bits at 2^LOW
_REACH = (HIGH - LOW) * STEPS + 2
N_BINS = 2 * _REACH + 1
NO_DOCUMENT = np.iinfo(np.int64).min
_LAST = 0xFFFFFFFF


def bins_of(values: torch.Tensor) -> torch.Tensor:
    """int32 bin of each float32 value: logarithmic away from 0, exactly 0 alone in the middle bin."""
    bits = values.view(torch.int32)
    size = ((bits & 0x7FFFFFFF) >> 19).sub_(_BASE - 2).clamp_(1, _REACH)
    size.mul_(values.sign().to(torch.int32))
    return size.add_(_REACH)


def bin_edges() -> NDArray[np.float64]:
    """(N_BINS + 1,) borders of the bins; the outermost are infinite, the middle bin lies between 0 and 0."""
    steps = (np.arange(_REACH - 1, dtype=np.int32) + _BASE) << 19
    above = np.concatenate([[0.0], steps.view(np.float32).astype(np.float64), [np.inf]])
    return np.concatenate([-above[::-1], above])


def quantiles_of(
    counts: NDArray[np.integer], levels: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Estimates of the quantiles of a histogram, linear inside a bin, within [low, high], the exact extremes."""
    edges = np.clip(bin_edges(), low, high)
    below = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    ranks = levels * below[-1]
    at = np.clip(np.searchsorted(below, ranks, side="right") - 1, 0, N_BINS - 1)
    at = np.where(counts[at] > 0, at, np.flatnonzero(counts)[-1])  # level 1 lies above the last filled bin
    inside = np.clip((ranks - below[at]) / counts[at], 0, 1)
    return np.asarray(edges[at] + inside * (edges[at + 1] - edges[at]), dtype=np.float64)


def keys_of(values: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """int64 keys that sort by float32 value and, where values are equal, put the smaller document number higher."""
    bits = (values + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (order.to(torch.int64) << 32) | (_LAST - documents)


def values_in(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """The values inside keys; minus infinity where there is no document."""
    order = (keys >> 32).astype(np.int32)
    values = (order ^ ((order >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    return np.where(keys == NO_DOCUMENT, np.float32(-np.inf), values)


def documents_in(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The document numbers inside keys."""
    return np.asarray(_LAST - (keys & _LAST), dtype=np.int64)


@dataclass
class Summary:
    """What is known of `n_units` neurons after some documents; axis 0 of the arrays of size 2 is the sign, + then -.

    n, n_documents, n_binned: () int64. mean, m2 (sum of squared deviations): (n_units,) float64.
    active, active_documents: (2, n_units) tokens, and documents by their largest activation, above 0 (-: below 0).
    top_key, top_window, top_position: (2, n_units, K), the documents of largest maxima, in falling order.
    counts: (n_units, N_BINS) histogram over the tokens drawn by priority. sample_*: the tokens of smallest priority.
    """

    n: NDArray[np.int64]
    n_documents: NDArray[np.int64]
    n_binned: NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    active: NDArray[np.int64]
    active_documents: NDArray[np.int64]
    top_key: NDArray[np.int64]
    top_window: NDArray[np.int32]
    top_position: NDArray[np.int32]
    counts: NDArray[np.int32]
    sample_priority: NDArray[np.uint64]
    sample_at: NDArray[np.int64]
    sample_values: NDArray[np.float32]

    @classmethod
    def empty(cls, n_units: int, top_k: int) -> Self:
        """The summary of no text."""
        zero = np.zeros((), dtype=np.int64)
        return cls(
            n=zero,
            n_documents=zero,
            n_binned=zero,
            mean=np.zeros(n_units),
            m2=np.zeros(n_units),
            active=np.zeros((2, n_units), dtype=np.int64),
            active_documents=np.zeros((2, n_units), dtype=np.int64),
            top_key=np.full((2, n_units, top_k), NO_DOCUMENT),
            top_window=np.zeros((2, n_units, top_k), dtype=np.int32),
            top_position=np.zeros((2, n_units, top_k), dtype=np.int32),
            counts=np.zeros((n_units, N_BINS), dtype=np.int32),
            sample_priority=np.zeros(0, dtype=np.uint64),
            sample_at=np.zeros((0, 3), dtype=np.int64),
            sample_values=np.zeros((0, n_units), dtype=np.float32),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The fields by name, as they are stored."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def add_moments(self, n: int, mean: NDArray[np.float64], m2: NDArray[np.float64]) -> None:
        """Takes in `n` more tokens of known mean and squared deviations. Source: Chan et al. 1979."""
        total = int(self.n) + n
        if total == 0:
            return
        shift = mean - self.mean
        self.m2 = self.m2 + m2 + shift**2 * (int(self.n) * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = np.asarray(total, dtype=np.int64)

    def add_top(self, keys: NDArray[np.int64], windows: NDArray[np.int32], positions: NDArray[np.int32]) -> None:
        """Takes in documents (2, n_units, n) that were not there before; which K remain is the same in any order."""
        k = self.top_key.shape[2]
        joined = np.concatenate([self.top_key, keys], axis=2)
        best, at = torch.from_numpy(joined).topk(k, dim=2)
        self.top_key, chosen = best.numpy(), at.numpy()
        new, kept = np.nonzero(chosen >= k), np.minimum(chosen, k - 1)
        source = (*new[:2], chosen[new] - k)
        self.top_window = np.take_along_axis(self.top_window, kept, axis=2)
        self.top_window[new] = windows[source]
        self.top_position = np.take_along_axis(self.top_position, kept, axis=2)
        self.top_position[new] = positions[source]

    def add_sample(
        self, priority: NDArray[np.uint64], at: NDArray[np.int64], values: NDArray[np.float32], *, limit: int
    ) -> None:
        """Takes in tokens and keeps the `limit` of smallest priority."""
        joined = np.concatenate([self.sample_priority, priority])
        kept = np.argsort(joined, kind="stable")[:limit]
        self.sample_priority = joined[kept]
        self.sample_at = np.concatenate([self.sample_at, at])[kept]
        self.sample_values = np.concatenate([self.sample_values, values])[kept]

    def merge(self, later: "Summary", *, sample_limit: int) -> None:
        """Takes in the summary of other documents."""
        self.add_moments(int(later.n), later.mean, later.m2)
        self.n_documents = self.n_documents + later.n_documents
        self.n_binned = self.n_binned + later.n_binned
        self.active = self.active + later.active
        self.active_documents = self.active_documents + later.active_documents
        self.counts = self.counts + later.counts
        self.add_top(later.top_key, later.top_window, later.top_position)
        self.add_sample(later.sample_priority, later.sample_at, later.sample_values, limit=sample_limit)
