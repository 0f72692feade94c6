"""Which texts are so alike that they count as one document."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SHINGLE = 5  # words; a shorter text is one shingle
BANDS, ROWS = 16, 4  # finds a pair of Jaccard similarity 0.8 with probability 0.9998
ALIKE = 0.7  # of the 64 minimal hashes; a pair of Jaccard similarity 0.8 reaches it with probability 0.98
_WORDS_AT_ONCE = 1 << 18
_GAP = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """The text in lower case, one space for all but letters and digits; the text itself if nothing is left."""
    return _GAP.sub(" ", text.casefold()).strip() or text.strip()


def duplicate_groups(texts: Sequence[str]) -> NDArray[np.int64]:
    """(n_texts,) equal numbers for texts that are near-duplicates, directly or through others.

    Two texts are near-duplicates where their sets of 5-word shingles have an estimated Jaccard similarity of at least
    0.7 (64 minimal hashes), or where they are equal once normalised.
    Source: Broder 1997, "On the resemblance and containment of documents".
    """
    if not texts:
        return np.zeros(0, dtype=np.int64)
    sketches = _sketches([normalised(text) for text in texts])
    pairs = _candidates(sketches)
    alike = np.zeros(len(pairs), dtype=bool)
    for at in range(0, len(pairs), 1 << 16):
        left, right = pairs[at : at + (1 << 16)].T
        alike[at : at + (1 << 16)] = (sketches[left] == sketches[right]).mean(axis=1) >= ALIKE
    left, right = pairs[alike].T
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(texts), len(texts)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _sketches(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(n_texts, 64) minimal hashes of the shingles of each text."""
    seeds = np.random.default_rng(20240607).integers(1, 2**63, size=(BANDS * ROWS, 2), dtype=np.uint64)
    seeds[:, 0] |= np.uint64(1)
    out = np.empty((len(texts), BANDS * ROWS), dtype=np.uint64)
    codes: dict[str, int] = {}
    at = 0
    while at < len(texts):
        words: list[list[str]] = []
        held = 0
        while at + len(words) < len(texts) and held < _WORDS_AT_ONCE:
            words.append(texts[at + len(words)].split(" "))
            held += len(words[-1])
        shingles, starts = _shingles(words, codes)
        for column, (factor, shift) in enumerate(seeds):
            out[at : at + len(words), column] = np.minimum.reduceat(_mixed(shingles * factor + shift), starts)
        at += len(words)
    return out


def _shingles(documents: list[list[str]], codes: dict[str, int]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of all shingles, document by document, and where each document's begin."""
    for word in set().union(*documents) - codes.keys():
        codes[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    flat = np.fromiter((codes[word] for words in documents for word in words), dtype=np.uint64)
    lengths = np.array([len(words) for words in documents])
    begin = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    owner = np.repeat(np.arange(len(documents)), lengths)
    hashed = np.zeros(len(flat), dtype=np.uint64)
    place = np.arange(len(flat)) - begin[owner]
    for step in range(SHINGLE):
        inside = place + step < lengths[owner]
        shifted = np.zeros_like(flat)
        shifted[: max(0, len(flat) - step)] = flat[step:]
        hashed = _mixed(hashed * np.uint64(0x9E3779B97F4A7C15) + np.where(inside, shifted, 0))
    full = (place == 0) | (place + SHINGLE <= lengths[owner])
    kept = np.maximum(lengths - SHINGLE + 1, 1)
    return hashed[full], np.concatenate([[0], np.cumsum(kept)[:-1]])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(29))


def _candidates(sketches: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n_pairs, 2) texts that agree on a whole band: neighbours in a bucket, and each with the first of its bucket."""
    found = []
    for band in range(BANDS):
        key = np.zeros(len(sketches), dtype=np.uint64)
        for row in range(band * ROWS, (band + 1) * ROWS):
            key = _mixed(key * np.uint64(0x9E3779B97F4A7C15) + sketches[:, row])
        order = np.argsort(key, kind="stable")
        same = key[order[1:]] == key[order[:-1]]
        head = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0))
        found.append(np.stack([order[:-1][same], order[1:][same]], axis=1))
        found.append(np.stack([order[head[1:]][same], order[1:][same]], axis=1))
    return np.unique(np.concatenate(found), axis=0)
