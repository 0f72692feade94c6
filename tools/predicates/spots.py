"""Which token to edit so that one condition flips at a later place, and what to put there."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds, shifted, token_table
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.tokens import Tokens, Vocabulary, last_run

Bools = NDArray[np.bool_]

NEAR = 8  # how far before a place something is put that must have occurred earlier
_OF_TOKEN = (nodes.Token, nodes.TokenMatches, nodes.Digit, nodes.Capitalised, nodes.Punctuation)


class Core(NamedTuple):
    """A condition without the negations and offsets around it: it is looked at `back` tokens before the judged place."""

    predicate: Predicate
    back: int
    negated: bool


class Spot(NamedTuple):
    """The position to edit. fits: (d_vocab,) the tokens that may make the core true there, where that depends on the place."""

    position: int
    fits: Bools | None = None


def core_of(part: Predicate) -> Core:
    """The condition inside `not` and `at`."""
    back, negated = 0, False
    while isinstance(part, nodes.Not | nodes.At):
        back += part.offset if isinstance(part, nodes.At) else 0
        negated ^= isinstance(part, nodes.Not)
        part = part.inner
    return Core(part, back, negated)


def table_of(predicate: Predicate, vocabulary: Vocabulary) -> Bools | None:
    """(d_vocab,) truth by token; None for a predicate that looks at more than its token."""
    if isinstance(predicate, _OF_TOKEN):
        return token_table(predicate, vocabulary)
    if not isinstance(predicate, nodes.AllOf | nodes.AnyOf | nodes.Not):
        return None
    tables = [table_of(part, vocabulary) for part in predicate.children()]
    known = [table for table in tables if table is not None]
    if len(known) < len(tables):
        return None
    if isinstance(predicate, nodes.Not):
        return ~known[0]
    return np.asarray((np.logical_and if isinstance(predicate, nodes.AllOf) else np.logical_or).reduce(known))


@dataclass(frozen=True)
class Spots:
    """Where and with what the core of one condition is edited."""

    core: Core
    tokens: Tokens
    rng: np.random.Generator

    @property
    def made_by_one_token(self) -> bool:
        """True where a single token makes the core true, so that it cannot be kept true by another."""
        if isinstance(self.core.predicate, nodes.Repeated | nodes.Induction):
            return True
        return not isinstance(self.core.predicate, nodes.Position) and int(self.choices()[0].sum()) < 2

    def find(self, window: int, pos: int) -> Spot | None:
        """The spot for a judged place; None where no edit of one token can flip the core."""
        p, at, first = self.core.predicate, pos - self.core.back, int(np.argmax(self.tokens.scored[window]))
        if at < first:
            return None
        match p:
            case nodes.PrecededBy() | nodes.StartsSentence():
                return Spot(at - 1) if at > first else None
            case nodes.Within():
                return self._mark(window, at, holds(p.inner, self.tokens), max(first, at - p.window))
            case nodes.Since():
                stops = np.flatnonzero(holds(p.last, self.tokens)[window, :at])
                low = int(stops[-1]) + 1 if len(stops) else first
                return self._mark(window, at, holds(p.inner, self.tokens), low)
            case nodes.Inside():
                return self._inside(window, at, first)
            case nodes.WordSoFar():
                fits = self._completing.get(self._before(window, at))
                return Spot(at, fits) if fits is not None else None
            case nodes.Repeated():
                high = at - p.min_gap + 1
                low = max(first, high - NEAR)
                if low >= high:
                    return None
                return Spot(int(self.rng.integers(low, high)), self._only(int(self.tokens.ids[window, at])))
            case nodes.Induction():
                return self._induction(window, at, first, p.length + 1)
            case _:
                return Spot(at)

    def _mark(self, window: int, at: int, marked: Bools, low: int) -> Spot | None:
        """The only marked position from `low` on; a random one near the place if there is none; None if there are more."""
        marks = low + np.flatnonzero(marked[window, low:at])
        if len(marks) == 1:
            return Spot(int(marks[0]))
        low = max(low, at - NEAR)
        return Spot(int(self.rng.integers(low, at))) if not len(marks) and low < at else None

    def _inside(self, window: int, at: int, first: int) -> Spot | None:
        """The last opening mark if the place is inside; else a random position near it, after the last mark of either kind."""
        p = self.core.predicate
        assert isinstance(p, nodes.Inside)
        ids = self.tokens.ids[window, :at]
        opening, closing = (_containing(mark, self.tokens.vocabulary)[ids] for mark in (p.open, p.close))
        if holds(p, self.tokens)[window, at]:
            return Spot(int(np.flatnonzero(opening)[-1])) if opening.any() else None
        marks = np.flatnonzero(opening | closing)
        low = max(first, at - NEAR, int(marks[-1]) + 1 if len(marks) else 0)
        return Spot(int(self.rng.integers(low, at))) if low < at else None

    def _induction(self, window: int, at: int, first: int, n: int) -> Spot | None:
        """The odd token of a random earlier n-gram that differs in one token only from the one that ends at the place."""
        gram = self.tokens.ids[window, at - n + 1 : at + 1]
        earlier = self.tokens.ids[window, first : at - n + 1]
        if at - n + 1 < first or len(earlier) < n:
            return None
        differs = np.lib.stride_tricks.sliding_window_view(earlier, n) != gram
        near = np.flatnonzero(differs.sum(axis=1) == 1)
        if not len(near):
            return None
        row = int(self.rng.choice(near))
        odd = int(np.argmax(differs[row]))
        return Spot(first + row + odd, self._only(int(gram[odd])))

    def _only(self, token: int) -> Bools:
        return np.arange(len(self.tokens.vocabulary.pieces)) == token

    def _before(self, window: int, at: int) -> str:
        """What is written of the word before the token at a place; "" where its first token would stand there."""
        so_far = str(self.tokens.words_so_far[window, at - 1]) if at else ""
        assert isinstance(self.core.predicate, nodes.WordSoFar)
        so_far = so_far.casefold() if self.core.predicate.ignore_case else so_far
        return so_far if so_far in self._completing else ""

    @cached_property
    def _completing(self) -> dict[str, Bools]:
        """By what is written of a word already, the tokens that may make it one of those of `word_so_far`: those that begin
        such a word, by "", and those that go on from there."""
        p, vocabulary = self.core.predicate, self.tokens.vocabulary
        assert isinstance(p, nodes.WordSoFar)
        fold = str.casefold if p.ignore_case else str
        found: dict[str, Bools] = {}
        for part in map(fold, p.any_of):
            written = {part[:size]: vocabulary.writing.get(part[size:].casefold(), ()) for size in range(1, len(part))}
            for begun, tokens in {"": vocabulary.ending.get(part.casefold(), ()), **written}.items():
                for token in tokens:
                    piece = fold(vocabulary.pieces[token])
                    if (piece.rstrip() or piece) == part[len(begun) :] if begun else last_run(piece) == part:
                        found.setdefault(begun, np.zeros(len(vocabulary.pieces), dtype=bool))[token] = True
        whole = found.get("")
        return found if whole is None else {begun: fits | whole for begun, fits in found.items()}

    def possible(self) -> Bools | None:
        """(n_windows, n_pos) where a token can make the core true; None where the place does not matter."""
        if not isinstance(self.core.predicate, nodes.WordSoFar) or "" in self._completing:
            return None
        fold = str.casefold if self.core.predicate.ignore_case else str
        grid = self.tokens.words_so_far
        begun = np.array([fold(part) in self._completing for part in grid.ravel()], dtype=bool).reshape(grid.shape)
        return shifted(begun, 1 + self.core.back)

    def choices(self) -> tuple[Bools, Bools]:
        """(d_vocab,) twice: tokens that may make the core true, and false, when put at the spot."""
        p, vocabulary = self.core.predicate, self.tokens.vocabulary
        if isinstance(p, nodes.Inside):
            opening = _containing(p.open, vocabulary)
            return opening, ~opening
        table = table_of(p.inner if isinstance(p, nodes.Within | nodes.Since) else p, vocabulary)
        if table is not None:
            return table, ~table
        if isinstance(p, nodes.Within | nodes.Since):
            held, shift = holds(p.inner, self.tokens), 0
        else:
            held, shift = holds(p, self.tokens), int(isinstance(p, nodes.PrecededBy | nodes.StartsSentence))
        return self._seen(held, shift), self._seen(~held, shift)

    def _seen(self, held: Bools, shift: int) -> Bools:
        """(d_vocab,) the tokens that stand `shift` before a scored place where it held."""
        held, scored = held & self.tokens.scored, self.tokens.scored
        width = held.shape[1] - shift
        table = np.zeros(len(self.tokens.vocabulary.pieces), dtype=bool)
        table[self.tokens.ids[:, :width][held[:, shift:] & scored[:, :width]]] = True
        return table


def _containing(mark: str, vocabulary: Vocabulary) -> Bools:
    tables: dict[str, Bools] = vocabulary.__dict__.setdefault("_containing", {})
    if mark not in tables:
        tables[mark] = np.array([mark in piece for piece in vocabulary.pieces], dtype=bool)
        tables[mark][list(vocabulary.special)] = False
    return tables[mark]
