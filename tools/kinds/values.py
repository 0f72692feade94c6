"""Statistics of units that have one value at each token: moments, the largest documents, a histogram, a sample."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.kinds.base import Arrays, Batch, Chunk, IndexSettings
from neuronaut.tools.summaries import N_BINS, NO_DOCUMENT, Largest, Sample, bins_of, keys_of, values_in
from neuronaut.tools.sums import TreeSum

_ROWS_AT_ONCE = 2048  # tokens put into histograms together
_UNITS_AT_ONCE = 512  # so that their bins stay in the processor's cache


@dataclass
class ValueSummary:
    """What is known of `n_units` units after some documents.

    Axis 0 of active, active_documents and of the arrays of `largest` is the sign: + alone, or + and then -.
    n, n_documents, n_binned: () tokens, documents, tokens in the histograms. sums: (2, n_units) of values and squares.
    active, active_documents: (signs, n_units) tokens, and documents by their largest value, above 0 (-: below 0).
    counts: (n_units, N_BINS) histogram over the tokens drawn by priority.
    """

    n: NDArray[np.int64]
    n_documents: NDArray[np.int64]
    n_binned: NDArray[np.int64]
    active: NDArray[np.int64]
    active_documents: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: TreeSum
    largest: Largest
    sample: Sample
    sample_limit: int

    @classmethod
    def empty(cls, n_units: int, settings: IndexSettings, *, signs: int, n_places: int) -> Self:
        """The summary of no text. n_places: numbers that say where a maximum is."""
        zero, tokens = np.zeros((), dtype=np.int64), np.zeros((signs, n_units), dtype=np.int64)
        return cls(
            n=zero,
            n_documents=zero,
            n_binned=zero,
            active=tokens,
            active_documents=tokens,
            counts=np.zeros((n_units, N_BINS), dtype=np.int64),
            sums=TreeSum((2, n_units)),
            largest=Largest.none((signs, n_units), settings.top_k, n_places),
            sample=Sample.none(n_units),
            sample_limit=settings.sample_tokens,
        )

    def arrays(self) -> Arrays:
        """As it is stored; counts of histograms in 32 bits, which a shard does not exceed."""
        return {
            **{name: getattr(self, name) for name in _COUNTED},
            "counts": self.counts.astype(np.int32 if self.counts.max(initial=0) < 2**31 else np.int64),
            **self.sums.arrays("sums"),
            "top_key": self.largest.keys,
            "top_place": self.largest.places,
            "sample_priority": self.sample.priority,
            "sample_at": self.sample.at,
            "sample_values": self.sample.values,
        }

    @classmethod
    def of(cls, arrays: Arrays, settings: IndexSettings) -> Self:
        """What `arrays` stored."""
        return cls(
            **{name: arrays[name] for name in _COUNTED},  # type: ignore[arg-type]
            counts=arrays["counts"].astype(np.int64),
            sums=TreeSum.of(arrays, "sums"),
            largest=Largest(arrays["top_key"], arrays["top_place"]),  # type: ignore[arg-type]
            sample=Sample(arrays["sample_priority"], arrays["sample_at"], arrays["sample_values"]),  # type: ignore[arg-type]
            sample_limit=settings.sample_tokens,
        )

    def merge(self, other: "ValueSummary") -> None:
        """Takes in the summary of other documents."""
        for name in (*_COUNTED, "counts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.sums.merge(other.sums)
        self.largest.add(other.largest.keys, other.largest.places)
        self.sample.add(other.sample, limit=self.sample_limit)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n_units,)."""
        return np.asarray(self.sums.total()[0] / max(1, int(self.n)))

    @property
    def variance(self) -> NDArray[np.float64]:
        """(n_units,)."""
        values, squares = self.sums.total() / max(1, int(self.n))
        return np.maximum(squares - values**2, 0.0)


_COUNTED = ("n", "n_documents", "n_binned", "active", "active_documents")


@dataclass
class ValueCollector:
    """One chunk of values.

    best: (n_documents, signs, n_units) the largest value of each document so far; places: (…, n_places - 1) where it is, first
    the row of the window in the chunk times its width plus the position.
    """

    chunk: Chunk
    into: ValueSummary
    best: torch.Tensor = field(init=False)
    places: torch.Tensor = field(init=False)
    least: torch.Tensor = field(init=False)
    _seen: NDArray[np.bool_] = field(init=False)
    _cut: np.uint64 = field(init=False)
    _sums: NDArray[np.float64] = field(init=False)
    _drawn: list[torch.Tensor] = field(default_factory=list)
    _sampled: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        signs, n_units = self.into.active.shape
        n_documents, n_places = len(self.chunk.groups), self.into.largest.places.shape[-1]
        self.best = torch.full((n_documents, signs, n_units), -torch.inf)
        self.places = torch.zeros((n_documents, signs, n_units, n_places - 1), dtype=torch.int32)
        self._seen = np.zeros(n_documents, dtype=bool)
        self.least = torch.from_numpy(values_in(self.into.largest.keys[..., -1]))
        self._sums = np.zeros((2, n_units))
        known = np.concatenate([self.into.sample.priority, self.chunk.priority[self.chunk.tokens.scored]])
        limit = self.into.sample_limit
        most = np.iinfo(np.uint64).max
        self._cut = np.uint64(np.partition(known, limit - 1)[limit - 1] if len(known) > limit else most)

    def add_values(self, x: torch.Tensor, batch: Batch, counted: NDArray[np.bool_], *, positive: bool = False) -> None:
        """Moments, counts, histogram and sample of values (n, pos, n_units). Fails on values that are not finite.

        positive: none is below 0.
        """
        n = int(counted.sum())
        if not n:
            return
        flat, weights = x.reshape(counted.size, -1), torch.from_numpy(counted.reshape(-1).astype(np.float32))
        self._draw(flat, batch, counted)
        work = torch.sign(flat)
        balance = weights @ work
        active = balance if positive else weights @ work.abs_()
        mean = (weights @ flat) / n
        squares = (weights @ torch.sub(flat, mean, out=work).square_()).double().numpy()
        if not np.isfinite(squares).all():
            raise ToolFailed("some activations are not finite: no statistics can be made of them")
        middle = mean.double().numpy()
        self._sums += np.stack([middle * n, squares + middle**2 * n])
        self.into.n = self.into.n + n
        both = torch.stack([active + balance, active - balance])[: len(self.into.active)]
        self.into.active = self.into.active + (both / 2).long().numpy()

    def _draw(self, flat: torch.Tensor, batch: Batch, counted: NDArray[np.bool_]) -> None:
        key = ("drawn", counted.tobytes(), int(self._cut))  # the same for all layers of a kind
        if key not in batch.memo:
            priority = batch.priority
            chosen = (counted & (priority < self.chunk.drawn), counted & (priority <= self._cut))
            batch.memo[key] = (priority.reshape(-1), *map(np.flatnonzero, chosen))
        priorities, drawn, sampled = batch.memo[key]
        if len(drawn):
            self._drawn.append(flat.index_select(0, torch.from_numpy(drawn)))
            if sum(map(len, self._drawn)) >= _ROWS_AT_ONCE:
                self._count()
        if len(sampled):
            window, position = batch.windows[sampled // batch.width], sampled % batch.width
            where = (self.chunk.groups[self.chunk.document[window]], self.chunk.ordinal[window], position)
            values = flat.index_select(0, torch.from_numpy(sampled)).numpy()
            self._sampled.append(Sample(priorities[sampled], np.stack(where, axis=1), values))

    def add_maxima(
        self, peaks: torch.Tensor, position: torch.Tensor, batch: Batch, more: torch.Tensor | None = None
    ) -> None:
        """The largest value of each window of a batch, and its position: (n, signs, n_units) each.

        more: what else says where it is, (n, signs, n_units, n_places - 2). Of equal ones the first that came remains.
        """
        rows = self.chunk.document[batch.windows]
        begins = torch.from_numpy(batch.windows * self.chunk.tokens.ids.shape[1]).int()
        places = (position + begins[:, None, None]).int()[..., None]
        places = places if more is None else torch.cat([places, more.int()], dim=-1)
        if "turns" not in batch.memo:
            batch.memo["turns"] = _turns(rows)
        turns: NDArray[np.int64] = batch.memo["turns"]
        for turn in range(int(turns.max(initial=0)) + 1):
            chosen = np.flatnonzero(turns == turn)
            documents = torch.from_numpy(rows[chosen])
            whole = len(chosen) == len(rows)
            new, where = (peaks, places) if whole else (peaks[chosen], places[chosen])
            if self._seen[rows[chosen]].any():
                known = self.best.index_select(0, documents)
                better = new > known
                new = torch.where(better, new, known)
                where = torch.where(better[..., None], where, self.places.index_select(0, documents))
            self.best.index_copy_(0, documents, new)
            self.places.index_copy_(0, documents, where)
            self._seen[rows[chosen]] = True

    def finish(self) -> None:
        """Adds the chunk to the summary."""
        self._count()
        into = self.into
        into.sums.add(self.chunk.number, self._sums)
        if self._sampled:
            columns = zip(*((one.priority, one.at, one.values) for one in self._sampled), strict=True)
            into.sample.add(Sample(*map(np.concatenate, columns)), limit=into.sample_limit)
        keys = keys_of(self.best, torch.from_numpy(self.chunk.groups)[:, None, None])
        seen = (self.best > -torch.inf).any(dim=2).any(dim=1)
        keys[~seen] = NO_DOCUMENT
        into.largest.add(keys.permute(1, 2, 0).numpy(), self.places.permute(1, 2, 0, 3).numpy(), self._meaning)
        into.n_documents = into.n_documents + int(seen.sum())
        into.active_documents = into.active_documents + (self.best > 0).sum(dim=0).numpy()

    def _meaning(self, places: NDArray[np.int32]) -> NDArray[np.int32]:
        """Window and position of the row of the window times the width plus the position."""
        row, position = np.divmod(places[:, 0], self.chunk.tokens.ids.shape[1])
        return np.column_stack([self.chunk.ordinal[row], position, places[:, 1:]]).astype(np.int32)

    def _count(self) -> None:
        if not self._drawn:
            return
        rows = torch.cat(self._drawn)
        self._drawn.clear()
        self.into.n_binned = self.into.n_binned + len(rows)
        for begin in range(0, rows.shape[1], _UNITS_AT_ONCE):
            bins = bins_of(rows[:, begin : begin + _UNITS_AT_ONCE].contiguous()).long()
            bins += torch.arange(bins.shape[1]) * N_BINS
            counts = torch.bincount(bins.flatten(), minlength=bins.shape[1] * N_BINS).view(-1, N_BINS)
            self.into.counts[begin : begin + _UNITS_AT_ONCE] += counts.numpy()


def _turns(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) how many equal numbers come before each."""
    found = np.zeros(len(rows), dtype=np.int64)
    if len(np.unique(rows)) < len(rows):
        order = np.argsort(rows, kind="stable")
        found[order] = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
    return found
