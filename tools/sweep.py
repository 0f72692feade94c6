"""One pass over text that summarises every neuron of some layers."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.corpus import Document, tokens_of
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.summaries import N_BINS, NO_DOCUMENT, Summary, bins_of, keys_of, values_in
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import PAD, Tokens

BATCH_TOKENS = 2048  # so that a layer's activations stay in the processor's cache
READ_BYTES = 256 << 20  # activations of one batch
_FEW = 0.4  # below this share of candidates, looking up their positions is cheaper than a maximum with positions
_ROWS_AT_ONCE = 2048  # tokens put into histograms together


@dataclass(frozen=True)
class Sweep:
    """What to look at and keep: histograms hold tokens of priority below `drawn`, `n_sample` tokens are kept whole."""

    layers: tuple[int, ...]
    drawn: int
    n_sample: int


@dataclass(frozen=True)
class _Chunk:
    """Windows; `document` is the row of each in `groups`, `ordinal` its number within the group."""

    tokens: Tokens
    groups: NDArray[np.int64]
    document: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    priority: NDArray[np.uint64]


@dataclass
class _Best:
    """The largest activation of each sign (+, −), document and unit: values, windows, positions, each (2, n_documents,
    n_units)."""

    values: torch.Tensor
    windows: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def none(cls, n_documents: int, n_units: int) -> "_Best":
        zeros = torch.zeros((2, n_documents, n_units), dtype=torch.int32)
        return cls(torch.full(zeros.shape, -torch.inf), zeros, zeros.clone())

    def take(self, document: int, window: int, values: torch.Tensor, positions: torch.Tensor) -> None:
        """values, positions: (2, n_units) of one window of the document."""
        better = values > self.values[:, document]
        self.values[:, document] = torch.where(better, values, self.values[:, document])
        self.windows[:, document].masked_fill_(better, window)
        self.positions[:, document] = torch.where(better, positions, self.positions[:, document])


@dataclass
class _Rows:
    """Whole tokens (n, n_units) taken out of batches."""

    pieces: list[torch.Tensor] = field(default_factory=list)

    def joined(self, n_units: int) -> torch.Tensor:
        return torch.cat(self.pieces) if self.pieces else torch.zeros((0, n_units))


def summarise(target: TargetModel, documents: Sequence[Document], sweep: Sweep, into: Summary) -> None:
    """Adds whole groups of documents, none of which was added before, to `into`.

    Positions that hold special tokens or padding are left out. The windows of a group are numbered from 0 over all its
    texts. Fails on activations that are not finite.
    """
    chunk = _chunk(target, documents)
    n_units = len(into.mean)
    best = _Best.none(len(chunk.groups), n_units)
    least = torch.from_numpy(values_in(into.top_key[:, :, -1]))
    cut = _sample_cut(chunk, into, sweep.n_sample)
    drawn, sampled, sampled_at = _Rows(), _Rows(), []
    with torch.inference_mode():
        for windows in batches(chunk.tokens, n_units):
            width = int(chunk.tokens.lengths[windows].max())
            scored = chunk.tokens.scored[windows, :width]
            priority = chunk.priority[windows, :width]
            read = _read(target, chunk.tokens.ids[windows, :width], sweep.layers)
            for rows, wanted in ((drawn, scored & (priority < sweep.drawn)), (sampled, scored & (priority <= cut))):
                if wanted.any():
                    chosen = torch.from_numpy(np.flatnonzero(wanted))
                    rows.pieces.append(torch.cat([x.flatten(0, 1).index_select(0, chosen) for x in read], dim=1))
            at = np.nonzero(scored & (priority <= cut))
            sampled_at.append(np.stack([windows[at[0]], at[1]], axis=1))
            _add_moments(read, scored, into)
            _add_peaks(read, scored, least, best, chunk, windows)
            if sum(map(len, drawn.pieces)) >= _ROWS_AT_ONCE:
                _add_counts(drawn.joined(n_units), into)
                drawn.pieces.clear()
        _add_counts(drawn.joined(n_units), into)
    _add_documents(best, chunk, into)
    places = np.concatenate(sampled_at) if sampled_at else np.zeros((0, 2), dtype=np.int64)
    where = (chunk.groups[chunk.document[places[:, 0]]], chunk.ordinal[places[:, 0]], places[:, 1])
    values = sampled.joined(n_units).numpy()
    into.add_sample(chunk.priority[tuple(places.T)], np.stack(where, axis=1), values, limit=sweep.n_sample)


def priorities(tokens: Tokens, keys: NDArray[np.uint64], ordinal: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n_windows, n_pos) a hash of document key (n_windows,), window and position: nothing else draws a token."""
    place = (ordinal[:, None] << 24) + np.arange(tokens.ids.shape[1])
    return _mixed(keys[:, None] + _mixed(place.astype(np.uint64)))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Source: Steele et al. 2014, splitmix64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _chunk(target: TargetModel, documents: Sequence[Document]) -> _Chunk:
    tokens = tokens_of(target, documents)
    texts: dict[int, str] = {}
    for document in documents:
        texts.setdefault(document.group, document.text)
    groups = np.array(list(texts), dtype=np.int64)
    row = {group: at for at, group in enumerate(texts)}
    rows = np.array([row[group] for group in tokens.documents.tolist()], dtype=np.int64)
    ordinal = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(groups)))[rows]
    hashes = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.values()]
    keys = np.array([int.from_bytes(one, "little") for one in hashes], dtype=np.uint64)
    return _Chunk(tokens, groups, rows, ordinal, priorities(tokens, keys[rows], ordinal))


def batches(tokens: Tokens, n_units: int) -> Iterator[NDArray[np.int64]]:
    """Windows that hold anything to score, of similar length, at most `BATCH_TOKENS` tokens with padding at a time."""
    limit = max(1, min(BATCH_TOKENS, READ_BYTES // (4 * n_units)))
    order = np.argsort(-tokens.lengths, kind="stable")
    order = order[np.any(tokens.scored, axis=1)[order]]
    while len(order):
        size = max(1, limit // int(tokens.lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _read(target: TargetModel, ids: NDArray[np.int32], layers: tuple[int, ...]) -> list[torch.Tensor]:
    sites = [Site("neurons", layer) for layer in layers]
    safe = torch.from_numpy(np.where(ids == PAD, 0, ids).astype(np.int64))
    read = target.run(safe, read=sites, stop=max(layers) + 1).read
    return [read[site].to("cpu", torch.float32).contiguous() for site in sites]


def _sample_cut(chunk: _Chunk, into: Summary, limit: int) -> np.uint64:
    known = np.concatenate([into.sample_priority, chunk.priority[chunk.tokens.scored]])
    return np.uint64(np.partition(known, limit - 1)[limit - 1] if len(known) > limit else np.iinfo(np.uint64).max)


def _add_moments(read: list[torch.Tensor], scored: NDArray[np.bool_], into: Summary) -> None:
    n = int(scored.sum())
    counted = torch.from_numpy(scored.reshape(-1).astype(np.float32))
    work = torch.empty((scored.size, read[0].shape[-1]))
    means, squares, positive, negative = [], [], [], []
    for x in read:
        flat = x.view(scored.size, -1)
        balance = counted @ torch.sign(flat, out=work)
        active = counted @ work.abs_()
        mean = (counted @ flat) / n
        squares.append(counted @ torch.sub(flat, mean, out=work).square_())
        means.append(mean)
        positive.append((active + balance) / 2)
        negative.append((active - balance) / 2)
    m2 = torch.cat(squares).double().numpy()
    if not np.isfinite(m2).all():
        raise ToolFailed("some activations are not finite: no statistics can be made of them")
    into.add_moments(n, torch.cat(means).double().numpy(), m2)
    into.active = into.active + torch.stack([torch.cat(positive), torch.cat(negative)]).long().numpy()


def _add_peaks(
    read: list[torch.Tensor],
    scored: NDArray[np.bool_],
    least: torch.Tensor,
    best: _Best,
    chunk: _Chunk,
    windows: NDArray[np.int64],
) -> None:
    """Overwrites the unscored positions. `least` (2, n_units): the position of a document below it is not looked up."""
    hidden = torch.from_numpy(np.flatnonzero(~scored))
    values = torch.empty((len(windows), 2, least.shape[1]))
    positions = torch.empty(values.shape, dtype=torch.int32)
    begin = 0
    for x in read:
        units = slice(begin, begin + x.shape[-1])
        for side, least_here in enumerate(least[:, units]):
            x.view(scored.size, -1).index_fill_(0, hidden, torch.inf if side else -torch.inf)
            values[:, side, units], positions[:, side, units] = _peaks(x, least_here, downwards=bool(side))
        begin += x.shape[-1]
    for row, window in enumerate(windows):
        document, ordinal = int(chunk.document[window]), int(chunk.ordinal[window])
        best.take(document, ordinal, values[row], positions[row])


def _peaks(x: torch.Tensor, least: torch.Tensor, *, downwards: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, d_mlp) the largest value (downwards: of the negated activation) of each window, and its position where it is
    above `least`."""
    peak = x.amin(dim=1).neg_() if downwards else x.amax(dim=1)
    wanted = peak > least
    if wanted.float().mean() > _FEW:
        return peak, x.argmin(dim=1) if downwards else x.argmax(dim=1)
    at = torch.zeros(peak.shape, dtype=torch.int64)
    window, unit = wanted.nonzero(as_tuple=True)
    found = x[window, :, unit]
    at[window, unit] = found.argmin(dim=1) if downwards else found.argmax(dim=1)
    return peak, at


def _add_counts(rows: torch.Tensor, into: Summary) -> None:
    if not len(rows):
        return
    into.n_binned = into.n_binned + len(rows)
    width = 512  # units at a time, so that their bins stay in the processor's cache
    for begin in range(0, rows.shape[1], width):
        bins = bins_of(rows[:, begin : begin + width].contiguous()).long()
        bins += torch.arange(bins.shape[1]) * N_BINS
        counts = torch.bincount(bins.flatten(), minlength=bins.shape[1] * N_BINS).view(-1, N_BINS)
        into.counts[begin : begin + width] += counts.int().numpy()


def _add_documents(best: _Best, chunk: _Chunk, into: Summary) -> None:
    keys = keys_of(best.values, torch.from_numpy(chunk.groups)[:, None])
    seen = (best.values[0] > -torch.inf).any(dim=1)
    keys[:, ~seen] = NO_DOCUMENT
    by_unit = (part.transpose(1, 2).numpy() for part in (keys, best.windows, best.positions))
    into.add_top(*by_unit)
    into.n_documents = into.n_documents + int(seen.sum())
    into.active_documents = into.active_documents + (best.values > 0).sum(dim=1).numpy()
