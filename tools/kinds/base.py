"""What the pass over the text hands to each kind of unit, and what a kind makes of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.corpus import Document, tokens_of
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class IndexSettings:
    """What an index keeps; another setting is another index.

    top_k: documents a unit and sign. chunk, shard: documents (near-duplicates counted once) tokenised together and stored
    together; shard is a multiple of chunk, so that no value depends on it. binned_tokens: about so many tokens, drawn by
    hash, go into the histograms of neurons and heads. sample_tokens: so many of these are kept whole.
    """

    top_k: int = 50
    chunk: int = 128
    shard: int = 1024
    binned_tokens: int = 32_768
    sample_tokens: int = 256


@dataclass(frozen=True)
class Chunk:
    """Documents that are tokenised together. number: of all chunks of explore. groups: (n_documents,) their numbers, rising.

    document: (n_windows,) the row of each window in `groups`; ordinal: its number within the group. priority: (n_windows,
    n_pos) a hash of each token's place. drawn: tokens of smaller priority go into histograms.
    """

    number: int
    tokens: Tokens
    groups: NDArray[np.int64]
    document: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    priority: NDArray[np.uint64]
    drawn: int

    @classmethod
    def of(cls, target: TargetModel, groups: Sequence[Sequence[Document]], number: int, drawn: int) -> Self:
        """The chunk of whole groups of documents. The windows of a group are numbered from 0 over all its texts."""
        tokens = tokens_of(target, [document for group in groups for document in group])
        numbers = np.array([group[0].group for group in groups], dtype=np.int64)
        rows = np.searchsorted(numbers, tokens.documents)
        ordinal = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(groups)))[rows]
        hashes = [hashlib.blake2b(group[0].text.encode(), digest_size=8).digest() for group in groups]
        keys = np.array([int.from_bytes(one, "little") for one in hashes], dtype=np.uint64)
        return cls(number, tokens, numbers, rows, ordinal, priorities(tokens, keys[rows], ordinal), drawn)


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


@dataclass(frozen=True)
class Batch:
    """Windows of a chunk that go through the target together, cut to the longest of them.

    windows: (n,) rows of the chunk's tokens. scored: (n, pos) neither special nor padding. memo: what all layers of
    a kind need of the tokens.
    """

    chunk: Chunk
    windows: NDArray[np.int64]
    scored: NDArray[np.bool_]
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> int:
        """Positions of the longest window."""
        return self.scored.shape[1]

    @property
    def priority(self) -> NDArray[np.uint64]:
        """(n, pos)."""
        return self.chunk.priority[self.windows, : self.width]


Read = Mapping[Site, torch.Tensor]


class Collector(Protocol):
    """Takes in one chunk batch by batch; `finish` adds it to what is known."""

    def take(self, batch: Batch, read: Read) -> None: ...

    def finish(self) -> None: ...


class Summary(Protocol):
    """What is known of a part after some chunks; merging it with that of other chunks is exact in any order."""

    def arrays(self) -> Arrays:
        """As it is stored."""
        ...

    def merge(self, other: Any) -> None:
        """Takes in the summary of other documents."""
        ...


class Kind(Protocol):
    """One part of a target that is indexed: its neurons, heads or features of one layer.

    name: the folder of its shards, which says what it is: equal names in one index, equal parts.
    """

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> int: ...

    @property
    def width(self) -> int:
        """How many units there are."""
        ...

    @property
    def sites(self) -> tuple[Site, ...]:
        """What is read of the target."""
        ...

    @property
    def bytes_a_cell(self) -> tuple[int, int]:
        """About so many bytes are read for each token, and for each pair of tokens of a window."""
        ...

    @property
    def tokens_at_once(self) -> int | None:
        """Read alone, so many tokens at a time; None: read together with other kinds."""
        ...

    def empty(self, settings: IndexSettings) -> Summary:
        """The summary of no text."""
        ...

    def restore(self, arrays: Arrays, settings: IndexSettings) -> Summary:
        """The summary that was stored."""
        ...

    def collect(self, chunk: Chunk, into: Any) -> Collector:
        """What takes in a chunk for a summary made by `empty`."""
        ...
