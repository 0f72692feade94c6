"""Text as the model sees it: token ids with pieces, words, character offsets and documents."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.chat.labels import Part

PAD = -1
_WORD = re.compile(r"\w+(?:['’]\w+)*")  # letters, digits and inner apostrophes; all else is no word
_RUN = re.compile(r"\w+(?:['’]\w*)*|[^\w\s]+|\s+")  # where one begins depends on the text before it alone


def last_run(text: str) -> str:
    """The word, run of marks or of white space at the end of a text, white space behind it left out; "" of an empty one."""
    runs = _RUN.findall(text.rstrip() or text)
    return runs[-1] if runs else ""


@dataclass(frozen=True)
class Vocabulary:
    """What each token id stands for: `pieces[id]` is its text (" and"), `special` ids carry none."""

    pieces: tuple[str, ...]
    special: frozenset[int]

    @cached_property
    def starts_word(self) -> NDArray[np.bool_]:
        """(d_vocab,) True where the piece begins with a space or other non-word character, or is special."""
        return np.array([not piece[:1].isalnum() for piece in self.pieces], dtype=bool)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(d_vocab,) characters of each token, 0 of special ones."""
        return np.array([0 if i in self.special else len(piece) for i, piece in enumerate(self.pieces)], dtype=np.int64)

    @cached_property
    def writing(self) -> dict[str, list[int]]:
        """The tokens by their text in lower case, without white space behind it."""
        return self._by(lambda piece: piece.rstrip() or piece)

    @cached_property
    def ending(self) -> dict[str, list[int]]:
        """The tokens by the word or run of marks at their end, in lower case."""
        return self._by(last_run)

    def _by(self, form: Callable[[str], str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for token, piece in enumerate(self.pieces):
            if piece and token not in self.special:
                found.setdefault(form(piece).casefold(), []).append(token)
        return found


@dataclass(frozen=True)
class Tokens:
    """Windows of documents, right-padded with PAD.

    ids, starts, ends: (n_windows, n_pos) int32; starts and ends are character offsets into `texts[window]`.
    documents: (n_windows,) int64, equal for the windows of one document.
    texts: the exact text of each window, special tokens left out.
    whole: the text that these windows were selected from, and their rows there: what is known of it need not be worked out
    again. parts: of chats, the part of the template that each token belongs to, a row a window; empty for plain text.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    documents: NDArray[np.int64]
    texts: tuple[str, ...]
    vocabulary: Vocabulary = field(repr=False)
    whole: "tuple[Tokens, NDArray[np.int64]] | None" = field(default=None, repr=False, compare=False)
    parts: tuple[tuple[Part, ...], ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        shape = self.ids.shape
        if len(shape) != 2 or self.starts.shape != shape or self.ends.shape != shape:
            raise ValueError(
                f"ids {shape}, starts {self.starts.shape} and ends {self.ends.shape} must be one 2-d shape"
            )
        if self.documents.shape != shape[:1] or len(self.texts) != shape[0]:
            raise ValueError(f"{shape[0]} windows need as many documents and texts")

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(n_windows,) number of tokens of each window, special tokens counted."""
        return (self.ids != PAD).sum(axis=1)

    @cached_property
    def scored(self) -> NDArray[np.bool_]:
        """(n_windows, n_pos) True at tokens that search and scores look at: neither padding nor special."""
        special = np.fromiter(self.vocabulary.special, dtype=np.int64)
        return (self.ids != PAD) & ~np.isin(self.ids, special)

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """(n_windows,) characters of its document that come before each window."""
        found, read = np.zeros(len(self), dtype=np.int64), dict[int, int]()
        for window, (document, text) in enumerate(zip(self.documents.tolist(), self.texts, strict=True)):
            found[window] = read.get(document, 0)
            read[document] = read.get(document, 0) + len(text)
        return found

    @cached_property
    def words(self) -> NDArray[np.object_]:
        """(n_windows, n_pos) the whole word that contains each token; '' where the token holds no part of a word."""
        if (known := self._known("words")) is not None:
            return known
        words = np.full(self.ids.shape, "", dtype=object)
        for window, text in enumerate(self.texts):
            spans = [(m.start(), m.end(), m.group()) for m in _WORD.finditer(text)]
            at = 0
            for pos in np.flatnonzero(self.scored[window]):
                start, end = self.starts[window, pos], self.ends[window, pos]
                while at < len(spans) and spans[at][1] <= start:
                    at += 1
                if at < len(spans) and spans[at][0] < end:
                    words[window, pos] = spans[at][2]
        return words

    @cached_property
    def words_so_far(self) -> NDArray[np.object_]:
        """(n_windows, n_pos) what has been written, when each token ends, of its word, run of marks or of white space.

        White space at the end of a token is left out; '' at special tokens and padding.
        """
        if (known := self._known("words_so_far")) is not None:
            return known
        found = np.full(self.ids.shape, "", dtype=object)
        blank = np.array([len(p) - len(p.rstrip()) if p.strip() else 0 for p in self.vocabulary.pieces], dtype=np.int64)
        for window, text in enumerate(self.texts):
            runs = np.array([match.start() for match in _RUN.finditer(text)], dtype=np.int64)
            at = np.flatnonzero(self.scored[window] & (self.ends[window] > self.starts[window]))
            ends = self.ends[window, at] - blank[self.ids[window, at]]
            starts = runs[np.searchsorted(runs, ends - 1, side="right") - 1] if len(at) else ends
            found[window, at] = [text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return found

    def _known(self, grid: str) -> NDArray[np.object_] | None:
        """A grid of the text that these windows were selected from, at them; None where it has not been worked out."""
        if self.whole is None or grid not in self.whole[0].__dict__:
            return None
        known: NDArray[np.object_] = self.whole[0].__dict__[grid][self.whole[1], : self.ids.shape[1]]
        return known

    def named(self, window: int, pos: int) -> str:
        """Position and text of a token, and in a chat what it belongs to."""
        part = self.part(window, pos)
        return f"{pos} {self.vocabulary.pieces[self.ids[window, pos]]}" + (f" ({part})" if part else "")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_scored(self) -> int:
        """Number of tokens that scores count."""
        return int(self.scored.sum())

    def select(self, windows: Sequence[int] | NDArray[np.integer]) -> "Tokens":
        """The named windows only, in the order given."""
        rows = np.asarray(windows, dtype=np.int64)
        width = int(self.lengths[rows].max(initial=1))
        return Tokens(
            self.ids[rows, :width],
            self.starts[rows, :width],
            self.ends[rows, :width],
            self.documents[rows],
            tuple(self.texts[row] for row in rows),
            self.vocabulary,
            (self, rows),
            tuple(self.parts[row] for row in rows) if self.parts else (),
        )

    def part(self, window: int, pos: int) -> Part | None:
        """What a token of a chat belongs to; None in plain text."""
        return self.parts[window][pos] if self.parts and self.parts[window] else None


def joined(parts: Sequence[Tokens]) -> Tokens:
    """The windows of all parts, one part behind the other. Refuses no parts; they must share a vocabulary."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.ids.shape[1] for part in parts)

    def padded(name: str, value: int) -> NDArray[np.int32]:
        arrays = (getattr(part, name) for part in parts)
        return np.concatenate(
            [np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=value) for one in arrays]
        )

    documents = np.concatenate([part.documents for part in parts])
    texts = tuple(text for part in parts for text in part.texts)
    rows = tuple(row for part in parts for row in (part.parts or ((),) * len(part)))
    labels = rows if any(part.parts for part in parts) else ()
    ids, starts, ends = padded("ids", PAD), padded("starts", 0), padded("ends", 0)
    return Tokens(ids, starts, ends, documents, texts, parts[0].vocabulary, parts=labels)


def tokens_from_ids(
    rows: Sequence[Sequence[int]], vocabulary: Vocabulary, documents: Sequence[int] | None = None
) -> Tokens:
    """Tokens of given id rows; the text of each window is its pieces joined, special tokens left out."""
    width = max((len(row) for row in rows), default=1)
    ids = np.full((len(rows), width), PAD, dtype=np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    sizes = np.where(ids == PAD, 0, vocabulary.sizes[np.maximum(ids, 0)])
    ends = np.cumsum(sizes, axis=1).astype(np.int32)
    texts = tuple("".join(vocabulary.pieces[i] for i in row if i not in vocabulary.special) for row in rows)
    numbers = np.arange(len(rows)) if documents is None else np.asarray(documents)
    return Tokens(ids, ends - sizes.astype(np.int32), ends, numbers.astype(np.int64), texts, vocabulary)
