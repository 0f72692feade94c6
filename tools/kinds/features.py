"""Features of a dictionary: few are above 0 at a token, so that only those are kept."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.kinds.base import Arrays, Batch, Chunk, IndexSettings, Read
from neuronaut.tools.summaries import N_BINS, NO_DOCUMENT, Largest, bin_edges, bins_of, keys_of
from neuronaut.tools.sums import TreeSum
from neuronaut.tools.targets.base import Site

ACTIVE_BYTES = 64 << 20  # activations of a dictionary that are held at once
_WIDER = 4  # bins of a neuron's histogram that make one here: four per doubling
_MIDDLE = N_BINS // 2
N_ACTIVE_BINS = -(-_MIDDLE // _WIDER)


def active_edges() -> NDArray[np.float64]:
    """(N_ACTIVE_BINS + 1,) borders of the bins of values above 0; the last is infinite."""
    edges = bin_edges()[_MIDDLE + 1 :]
    return np.append(edges[:-1:_WIDER][:N_ACTIVE_BINS], np.inf)


@dataclass
class FeatureSummary:
    """What is known of `width` features after some documents.

    n, n_documents: () tokens and documents. active, active_documents: (width,) those with a value above 0. sums: (2, width) of
    values and squares. counts: (width, N_ACTIVE_BINS) histogram of all values above 0. largest: (width, K) documents in which
    it is above 0, with window and position.
    """

    n: NDArray[np.int64]
    n_documents: NDArray[np.int64]
    active: NDArray[np.int64]
    active_documents: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: TreeSum
    largest: Largest

    @classmethod
    def empty(cls, width: int, settings: IndexSettings) -> Self:
        """The summary of no text."""
        zero, each = np.zeros((), dtype=np.int64), np.zeros(width, dtype=np.int64)
        counts = np.zeros((width, N_ACTIVE_BINS), dtype=np.int64)
        largest = Largest.none((width,), settings.top_k, 2)
        return cls(zero, zero, each, each, counts, TreeSum((2, width)), largest)

    def arrays(self) -> Arrays:
        """As it is stored; counts of histograms in 32 bits, which a shard does not exceed."""
        return {
            **{name: getattr(self, name) for name in _COUNTED},
            "counts": self.counts.astype(np.int32 if self.counts.max(initial=0) < 2**31 else np.int64),
            **self.sums.arrays("sums"),
            "top_key": self.largest.keys,
            "top_place": self.largest.places,
        }

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """What `arrays` stored."""
        return cls(
            **{name: arrays[name] for name in _COUNTED},  # type: ignore[arg-type]
            counts=arrays["counts"].astype(np.int64),
            sums=TreeSum.of(arrays, "sums"),
            largest=Largest(arrays["top_key"], arrays["top_place"]),  # type: ignore[arg-type]
        )

    def merge(self, other: "FeatureSummary") -> None:
        """Takes in the summary of other documents."""
        for name in (*_COUNTED, "counts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.sums.merge(other.sums)
        self.largest.add(other.largest.keys, other.largest.places)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(width,) over all tokens."""
        return np.asarray(self.sums.total()[0] / max(1, int(self.n)))

    @property
    def variance(self) -> NDArray[np.float64]:
        """(width,) over all tokens."""
        values, squares = self.sums.total() / max(1, int(self.n))
        return np.maximum(squares - values**2, 0.0)


_COUNTED = ("n", "n_documents", "active", "active_documents")


@dataclass(frozen=True)
class Features:
    """The features of a dictionary that reads `layer`. key: of its files or weights, which says what it is."""

    dictionary: str
    key: str
    layer: int
    width: int

    @property
    def name(self) -> str:
        """The folder of its shards."""
        return f"features-{self.key[:16]}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """All features."""
        return (Site("features", self.layer, self.dictionary),)

    @property
    def bytes_a_cell(self) -> tuple[int, int]:
        """Nothing beside the other kinds."""
        return 0, 0

    @property
    def tokens_at_once(self) -> int:
        """Tokens whose activations are read together."""
        return max(1, ACTIVE_BYTES // (4 * self.width))

    def empty(self, settings: IndexSettings) -> FeatureSummary:
        """The summary of no text."""
        return FeatureSummary.empty(self.width, settings)

    def restore(self, arrays: Arrays, settings: IndexSettings) -> FeatureSummary:
        """The summary that was stored."""
        return FeatureSummary.of(arrays)

    def collect(self, chunk: Chunk, into: FeatureSummary) -> "FeatureCollector":
        """What takes in a chunk."""
        return FeatureCollector(self, chunk, into, np.zeros((2, self.width)), np.zeros(len(chunk.groups), dtype=bool))


@dataclass
class _Best:
    """The largest value of each document and feature that is above 0. at: document · width + feature, rising."""

    at: NDArray[np.int64]
    value: NDArray[np.float32]
    place: NDArray[np.int32]

    def largest(self) -> "_Best":
        """One a document and feature: the largest, of equal ones the first in the text."""
        order = np.lexsort((self.place[:, 1], self.place[:, 0], -self.value, self.at))
        at = self.at[order]
        kept = order[np.flatnonzero(np.diff(at, prepend=-1))]
        return _Best(self.at[kept], self.value[kept], self.place[kept])


@dataclass
class FeatureCollector:
    """One chunk of the features of a dictionary."""

    kind: Features
    chunk: Chunk
    into: FeatureSummary
    _sums: NDArray[np.float64]
    _seen: NDArray[np.bool_]
    _best: list[_Best] = field(default_factory=list)

    def take(self, batch: Batch, read: Read) -> None:
        """Takes in a batch. Fails on values that are not finite."""
        x = read[self.kind.sites[0]].to("cpu", torch.float32)
        kept = torch.from_numpy(np.flatnonzero(batch.scored))
        rows = x.reshape(-1, self.kind.width)[kept]
        token, unit = rows.nonzero(as_tuple=True)
        values = rows[token, unit]
        if not bool(torch.isfinite(values).all()):
            raise ToolFailed(
                f"some features of {self.kind.dictionary!r} are not finite: no statistics can be made of them"
            )
        self._seen[self.chunk.document[batch.windows[batch.scored.any(axis=1)]]] = True
        self.into.n = self.into.n + len(rows)
        self._count(unit.numpy(), values)
        place = kept[token].numpy()
        window = batch.windows[place // batch.width]
        at = self.chunk.document[window] * self.kind.width + unit.numpy()
        where = np.stack([self.chunk.ordinal[window], place % batch.width], axis=1).astype(np.int32)
        self._best.append(_Best(at, values.numpy(), where).largest())

    def _count(self, unit: NDArray[np.int64], values: torch.Tensor) -> None:
        exact, width = values.double().numpy(), self.kind.width
        self._sums[0] += np.bincount(unit, exact, minlength=width)
        self._sums[1] += np.bincount(unit, exact**2, minlength=width)
        self.into.active = self.into.active + np.bincount(unit, minlength=width)
        bins = (bins_of(values).numpy().astype(np.int64) - _MIDDLE - 1) // _WIDER
        cells, counts = np.unique(unit * N_ACTIVE_BINS + bins, return_counts=True)
        self.into.counts.reshape(-1)[cells] += counts

    def finish(self) -> None:
        """Adds the chunk to the summary."""
        into, width = self.into, self.kind.width
        into.sums.add(self.chunk.number, self._sums)
        into.n_documents = into.n_documents + int(self._seen.sum())
        if not self._best:
            return
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(best, name) for best in self._best]) for name in ("at", "value", "place")
        }
        best = _Best(**joined).largest()
        document, unit = np.divmod(best.at, width)
        into.active_documents = into.active_documents + np.bincount(unit, minlength=width)
        groups = torch.from_numpy(self.chunk.groups[document])
        keys = keys_of(torch.from_numpy(best.value), groups).numpy()
        may = keys > into.largest.keys[unit, -1]
        _add_few(into.largest, unit[may], keys[may], best.place[may])


def _add_few(largest: Largest, unit: NDArray[np.int64], keys: NDArray[np.int64], places: NDArray[np.int32]) -> None:
    """Adds documents to some units: one row of unit, keys, places each."""
    order = np.argsort(unit, kind="stable")
    units, begins, counts = np.unique(unit[order], return_index=True, return_counts=True)
    most = int(counts.max(initial=0))
    at = (np.repeat(np.arange(len(units)), counts), np.arange(len(unit)) - np.repeat(begins, counts))
    padded = np.full((len(units), most), NO_DOCUMENT)
    where = np.zeros((len(units), most, places.shape[-1]), dtype=np.int32)
    padded[at], where[at] = keys[order], places[order]
    part = Largest(largest.keys[units], largest.places[units])
    part.add(padded, where)
    largest.keys[units], largest.places[units] = part.keys, part.places
