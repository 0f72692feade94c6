"""The order of a corpus: near-duplicates side by side, groups sorted and put into splits by hash."""

import hashlib
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.corpora.documents import SPLIT_RULE, SPLITS, places_of
from neuronaut.tools.duplicates import Sketches, alike_groups, merged

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
_AT_ONCE = 1 << 16


class Digests(Protocol):
    """For each text the sha256 of its normalised form, then of the text itself: 64 bytes, wherever they lie."""

    def __len__(self) -> int: ...

    def rows(self, at: Ints) -> Bytes:
        """(len(at), 64) those of some texts."""
        ...


class Order(NamedTuple):
    """(n,) each: which text comes when, and its group, split (a place in SPLITS) and block; and the corpus's sha256."""

    at: Ints
    group: NDArray[np.int32]
    split: NDArray[np.int8]
    block: NDArray[np.int8]
    sha256: str


def in_order(
    digests: Digests, sketches: Sketches, text_of: Callable[[int], str], *, follows: NDArray[np.bool_]
) -> Order:
    """The texts in the order of their corpus.

    follows: (n,) True where a text goes on with the one before it, so that both are one document. A group goes where
    the hash of its smallest member hash sends it, so that the order in which texts were read does not matter.
    """
    at = _sorted(digests, text_of)
    labels = alike_groups(sketches, at, _known(digests, at, follows))
    names, first, group = np.unique(labels, return_index=True, return_inverse=True)
    keys = np.empty((len(names), 32), dtype=np.uint8)
    for begin in range(0, len(names), _AT_ONCE):
        part = digests.rows(at[first[begin : begin + _AT_ONCE]])[:, :32]
        hashed = b"".join(hashlib.sha256(SPLIT_RULE + row.tobytes()).digest() for row in part)
        keys[begin : begin + _AT_ONCE] = np.frombuffer(hashed, dtype=np.uint8).reshape(-1, 32)
    # the order must not depend on the bytes that choose the split
    high, low = (keys[:, begin : begin + 8].copy().view(">u8").ravel() for begin in (16, 24))
    number = np.empty(len(names), dtype=np.int32)
    number[np.lexsort((low, high))] = np.arange(len(names), dtype=np.int32)
    split, block = places_of(keys)
    own = number[group]
    final = np.argsort(own, kind="stable")
    split, block = split[group][final], block[group][final]
    return Order(at[final], own[final], split, block, _sha256(digests, at[final], own[final], split, block))


def _sorted(digests: Digests, text_of: Callable[[int], str]) -> Ints:
    """The texts by the hash of their normalised form; where these are equal, by the text itself."""
    n = len(digests)
    head = np.empty(n, dtype=np.uint64)
    for begin in range(0, n, _AT_ONCE):
        rows = digests.rows(np.arange(begin, min(n, begin + _AT_ONCE)))
        head[begin : begin + len(rows)] = rows[:, :8].copy().view(">u8").ravel()
    at = np.argsort(head, kind="stable")
    alike = np.flatnonzero(head[at[1:]] == head[at[:-1]])
    for _, run in groupby(enumerate(alike.tolist()), key=lambda one: one[1] - one[0]):
        places = [place for _, place in run]
        part = slice(places[0], places[-1] + 2)
        at[part] = _ties(at[part], digests.rows(at[part]), text_of)
    return at


def _ties(at: Ints, rows: Bytes, text_of: Callable[[int], str]) -> Ints:
    """Texts whose hashes begin alike; each different text is read once."""
    own = [(row[:32].tobytes(), row[32:].tobytes()) for row in rows]
    if len(set(own)) == 1:
        return at
    shown = dict(zip(own, at.tolist(), strict=True))
    texts = {pair: text_of(one) for pair, one in shown.items()}
    ranked = sorted(range(len(own)), key=lambda place: (own[place][0], texts[own[place]]))
    return at[np.array(ranked)]


def _known(digests: Digests, at: Ints, follows: NDArray[np.bool_]) -> Ints:
    """(n,) labels in the order `at`: equal normalised texts belong together, and parts of one document."""
    labels = np.arange(len(at))
    last = np.zeros(32, dtype=np.uint8)
    new = np.ones(len(at), dtype=bool)
    for begin in range(0, len(at), _AT_ONCE):
        rows = digests.rows(at[begin : begin + _AT_ONCE])[:, :32]
        before = np.concatenate([last[None], rows[:-1]])
        new[begin : begin + len(rows)] = (rows != before).any(axis=1)
        last = rows[-1]
    new[:1] = True
    labels = np.maximum.accumulate(np.where(new, labels, 0))
    place = np.empty_like(at)
    place[at] = np.arange(len(at))
    parts = np.flatnonzero(follows)
    return merged(labels, labels[place[parts - 1]], labels[place[parts]])


def _sha256(
    digests: Digests, at: Ints, group: NDArray[np.int32], split: NDArray[np.int8], block: NDArray[np.int8]
) -> str:
    fingerprint = hashlib.sha256(SPLIT_RULE)
    for begin in range(0, len(at), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        hashes = digests.rows(at[part])[:, 32:]
        places = zip(hashes, group[part].tolist(), split[part].tolist(), block[part].tolist(), strict=True)
        said = (b"%b%d %b %d;" % (row.tobytes(), g, SPLITS[s].encode(), b) for row, g, s, b in places)
        fingerprint.update(b"".join(said))
    return fingerprint.hexdigest()
