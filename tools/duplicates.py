"""Which texts are so alike that they count as one document."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SHINGLE = 5  # words; a shorter text is one shingle
BANDS, ROWS = 16, 4  # finds a pair of Jaccard similarity 0.8 with probability 0.9998
ALIKE = 0.7  # of the 64 minimal hashes; a pair of Jaccard similarity 0.8 reaches it with probability 0.98
WORDS_AT_ONCE = 1 << 15  # so that the words just read are still in the processor's cache
_BLOCK = 1 << 13  # shingles hashed together, which fit into the processor's cache
_KNOWN_WORDS = 1 << 20
_PAIRS_AT_ONCE = 1 << 14
_GAP = re.compile(r"[\W_]+")
_PLAIN = bytes(code | 32 if chr(code).isalpha() else code if chr(code).isdigit() else 32 for code in range(128)) * 2

Words = list[bytes]
Hashes = NDArray[np.uint64]


class Sketches(Protocol):
    """The minimal hashes of some texts, wherever they lie."""

    def __len__(self) -> int: ...

    def rows(self, at: NDArray[np.int64]) -> Hashes:
        """(len(at), 64) the minimal hashes of some texts."""
        ...

    def band(self, number: int) -> Hashes:
        """(n_texts,) a key of four of the minimal hashes: texts are compared where they agree on one."""
        ...


class HeldSketches:
    """Sketches in memory, (n_texts, 64)."""

    def __init__(self, values: Hashes) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def rows(self, at: NDArray[np.int64]) -> Hashes:
        """As Sketches wants it."""
        return self._values[at]

    def band(self, number: int) -> Hashes:
        """As Sketches wants it."""
        return bands_of(self._values, number)


def normalised(text: str) -> str:
    """The text in lower case, one space for all but letters and digits; the text itself if nothing is left."""
    return b" ".join(words_of(text)).decode()


def words_of(text: str) -> Words:
    """The words of the normalised text, which are what its spaces part."""
    if text.isascii():
        words = text.encode().translate(_PLAIN).split()
    else:
        words = _GAP.sub(" ", text.casefold()).encode().split()
    return words or text.strip().encode().split(b" ")


def duplicate_groups(texts: Sequence[str]) -> NDArray[np.int64]:
    """(n_texts,) equal numbers for texts that are near-duplicates, directly or through others.

    Two texts are near-duplicates where their sets of 5-word shingles have an estimated Jaccard similarity of at least
    0.7 (64 minimal hashes), or where they are equal once normalised.
    Source: Broder 1997, "On the resemblance and containment of documents".
    """
    sketcher = Sketcher()
    parts = [sketcher.sketches(batch) for batch in batches_of(map(words_of, texts))]
    sketches = HeldSketches(np.concatenate([np.zeros((0, BANDS * ROWS), dtype=np.uint64), *parts]))
    return alike_groups(sketches, np.arange(len(texts)), np.arange(len(texts)))


def alike_groups(sketches: Sketches, order: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n_texts,) in the order given, equal numbers for near-duplicates.

    order: (n_texts,) which text comes when. labels: (n_texts,) in that order, equal where texts are known to belong
    together. Texts that agree on a band are compared with their neighbours in it and with the first of it; what already
    belongs together need not be compared, and so the time is linear in the number of texts, however many are alike.
    """
    for number in range(BANDS):
        left, right = _neighbours(sketches.band(number)[order])
        for at in range(0, len(left), _PAIRS_AT_ONCE):
            one, other = left[at : at + _PAIRS_AT_ONCE], right[at : at + _PAIRS_AT_ONCE]
            apart = labels[one] != labels[other]
            one, other = one[apart], other[apart]
            if len(one):
                same = sketches.rows(order[one]) == sketches.rows(order[other])
                found = same.mean(axis=1) >= ALIKE
                labels = merged(labels, labels[one[found]], labels[other[found]])
    return labels


def merged(labels: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """`labels` (values 0 to n - 1) with each label of `one` made equal to its partner in `other`."""
    if not len(one):
        return labels
    nodes, at = np.unique(np.concatenate([one, other]), return_inverse=True)
    left, right = at[: len(one)], at[len(one) :]
    graph = coo_array((np.ones(len(one), dtype=np.int8), (left, right)), shape=(len(nodes), len(nodes)))
    component = connected_components(graph, directed=False)[1]
    first = np.full(len(nodes), len(labels), dtype=np.int64)
    np.minimum.at(first, component, nodes)
    renamed = np.arange(len(labels))
    renamed[nodes] = first[component]
    return renamed[labels]


def _neighbours(key: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of texts with the same key: each with the one before it, and with the first."""
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order[1:]] == key[order[:-1]]) + 1
    if not len(same):
        return same, same
    begins = np.concatenate([[True], np.diff(same) > 1])
    head = same[np.maximum.accumulate(np.where(begins, np.arange(len(same)), 0))] - 1
    left = np.concatenate([order[same - 1], order[head[~begins]]])
    return left, np.concatenate([order[same], order[same[~begins]]])


class _Codes(dict[bytes, int]):
    def __missing__(self, word: bytes) -> int:
        code = self[word] = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
        return code


class Sketcher:
    """Makes sketches; what it keeps of the words it has seen is bounded."""

    def __init__(self) -> None:
        self._codes = _Codes()
        self._seeds = np.random.default_rng(20240607).integers(1, 2**63, size=(BANDS * ROWS, 2), dtype=np.uint64)
        self._seeds[:, 0] |= np.uint64(1)

    def sketches(self, texts: Sequence[Words]) -> Hashes:
        """(n_texts, 64) minimal hashes of the shingles of each text."""
        return self.minimal(*self.coded(texts))

    def coded(self, texts: Sequence[Words]) -> tuple[Hashes, NDArray[np.int64]]:
        """The hashes of all words, text by text, and the number of words of each text."""
        if len(self._codes) > _KNOWN_WORDS:
            self._codes.clear()
        lengths = np.array([len(words) for words in texts], dtype=np.int64)
        flat = np.fromiter(map(self._codes.__getitem__, chain.from_iterable(texts)), np.uint64, int(lengths.sum()))
        return flat, lengths

    def minimal(self, flat: Hashes, lengths: NDArray[np.int64]) -> Hashes:
        """(n_texts, 64) from what `coded` gives."""
        shingles, starts = _shingles(flat, lengths)
        ends = np.append(starts, len(shingles))
        out = np.empty((BANDS * ROWS, len(lengths)), dtype=np.uint64)
        borders = np.unique(np.append(np.searchsorted(starts, np.arange(0, len(shingles), _BLOCK)), len(starts)))
        for first, last in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            part = shingles[ends[first] : ends[last]]
            value, work = np.empty_like(part), np.empty_like(part)
            for row, (factor, shift) in zip(out, self._seeds, strict=True):
                np.multiply(part, factor, out=value)
                np.add(value, shift, out=value)
                _mix(value, work)
                np.minimum.reduceat(value, starts[first:last] - starts[first], out=row[first:last])
        return np.ascontiguousarray(out.T)


def batches_of(texts: Iterable[Words]) -> Iterable[list[Words]]:
    """The texts in their order, some at a time: at most 2**15 words together, but for a text that has more."""
    batch: list[Words] = []
    held = 0
    for words in texts:
        batch.append(words)
        held += len(words)
        if held >= WORDS_AT_ONCE:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def bands_of(sketches: Hashes, number: int) -> Hashes:
    """(n_texts,) the key of a band of (n_texts, 64) minimal hashes."""
    key = np.zeros(len(sketches), dtype=np.uint64)
    for row in range(number * ROWS, (number + 1) * ROWS):
        key *= np.uint64(0x9E3779B97F4A7C15)
        key += sketches[:, row]
        _mix(key, np.empty_like(key))
    return key


def _shingles(flat: Hashes, lengths: NDArray[np.int64]) -> tuple[Hashes, NDArray[np.int64]]:
    """The hashes of all shingles, text by text, and where each text's begin; the words a short text lacks count as 0."""
    begins = np.cumsum(lengths) - lengths
    short = np.flatnonzero(lengths < SHINGLE)
    if len(short):
        missing = SHINGLE - lengths[short]
        flat = np.insert(flat, np.repeat(begins[short] + lengths[short], missing), np.uint64(0))
        lengths = np.maximum(lengths, SHINGLE)
        begins = np.cumsum(lengths) - lengths
    n = max(0, len(flat) - SHINGLE + 1)
    hashed = np.zeros(n, dtype=np.uint64)
    work = np.empty_like(hashed)
    for step in range(SHINGLE):
        hashed *= np.uint64(0x9E3779B97F4A7C15)
        hashed += flat[step : step + n]
        _mix(hashed, work)
    whole = np.ones(n, dtype=bool)
    for step in range(1, SHINGLE):
        whole[begins[1:] - step] = False
    kept = lengths - SHINGLE + 1
    return hashed[whole], np.cumsum(kept) - kept


def _mix(values: Hashes, work: Hashes) -> None:
    """Scrambles the values where they lie."""
    np.right_shift(values, np.uint64(31), out=work)
    np.bitwise_xor(values, work, out=values)
    np.multiply(values, np.uint64(0xBF58476D1CE4E5B9), out=values)
    np.right_shift(values, np.uint64(29), out=work)
    np.bitwise_xor(values, work, out=values)
