"""Parts of statistics that can be merged in any order: histograms, the largest documents, a sample of tokens."""

from collections.abc import Callable
from dataclasses import dataclass
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
Meaning = Callable[[NDArray[np.int32]], NDArray[np.int32]]


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
class Largest:
    """The documents in which each of some units is largest, falling. keys: (…, K), see `keys_of`; places: (…, K, p), where."""

    keys: NDArray[np.int64]
    places: NDArray[np.int32]

    @classmethod
    def none(cls, shape: tuple[int, ...], k: int, n_places: int) -> Self:
        """No documents, of units of a shape."""
        return cls(np.full((*shape, k), NO_DOCUMENT), np.zeros((*shape, k, n_places), dtype=np.int32))

    def add(self, keys: NDArray[np.int64], places: NDArray[np.int32], meaning: Meaning | None = None) -> None:
        """Takes in documents (…, n) that were not there before; which K remain is the same in any order.

        meaning: makes places (m, p) of what is in `places` (…, n, q) of those that remain.
        """
        k = self.keys.shape[-1]
        best, at = torch.from_numpy(np.concatenate([self.keys, keys], axis=-1)).topk(k, dim=-1)
        chosen, held = at.numpy(), at.clamp_max(k - 1)[..., None].expand(*at.shape, self.places.shape[-1])
        # what stands where there is no document must not depend on the order
        new = np.nonzero((chosen >= k) & (best.numpy() != NO_DOCUMENT))
        kept = torch.from_numpy(self.places).gather(-2, held).numpy()
        found = places[(*new[:-1], chosen[new] - k)]
        kept[new] = found if meaning is None else meaning(found)
        kept[best.numpy() == NO_DOCUMENT] = 0
        self.keys, self.places = best.numpy(), kept


@dataclass
class Sample:
    """Whole tokens of smallest priority. priority: (n,); at: (n, 3) document, window, position; values: (n, n_units)."""

    priority: NDArray[np.uint64]
    at: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def none(cls, n_units: int) -> Self:
        """No tokens."""
        zero = (np.zeros(0, dtype=np.uint64), np.zeros((0, 3), dtype=np.int64))
        return cls(*zero, np.zeros((0, n_units), dtype=np.float32))

    def add(self, other: "Sample", *, limit: int) -> None:
        """Takes in tokens that were not there before and keeps the `limit` of smallest priority."""
        priority, at = np.concatenate([self.priority, other.priority]), np.concatenate([self.at, other.at])
        kept = np.lexsort((*at.T[::-1], priority))[:limit]
        self.priority, self.at = priority[kept], at[kept]
        self.values = np.concatenate([self.values, other.values])[kept]
