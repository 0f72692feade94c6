"""Families of keys: what the places of a text are told apart by, and the leaf that a set of keys makes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate

LONGEST = 100  # characters of a piece or word that a leaf may name
BRANCHES = 10  # of a regular expression, whose length is bounded
ENTRIES = 20  # of a table of pairs: each is two leaves of the at most 64
TAIL_COST = 8  # more than `at` some tokens earlier, which reads better where both say nearly the same
_META = frozenset(r".^$*+?{}[]\|()")

Keys = NDArray[np.int32]


@dataclass(frozen=True)
class Family:
    """Keys of places, of which a set makes a leaf.

    keys: (n_places,) index into `names`, -1 where the place has none. node: the predicate of a set of keys.
    item_cost: items of the complexity that each key adds; own_cost: those of the leaf itself, one more for a loose form. max_keys: largest set.
    """

    name: str
    keys: Keys
    names: tuple[str, ...]
    node: Callable[[tuple[str, ...]], Predicate]
    item_cost: int = 1
    own_cost: int = 1
    max_keys: int = 100

    @cached_property
    def slots(self) -> NDArray[np.intp]:
        """(n_places,) the keys plus one, so that places without one are counted as 0."""
        return self.keys.astype(np.intp) + 1


@dataclass(frozen=True)
class Coded:
    """Texts as numbers in order of appearance. keys: (n,) the number of each, -1 for none; codes: the number of each text."""

    keys: Keys
    codes: dict[str, int]

    @classmethod
    def of(cls, texts: Iterable[str | None], after: "Coded | None" = None) -> "Coded":
        """The texts, numbered on from those that came before; `keys` are of the new ones alone."""
        codes: dict[str, int] = {} if after is None else dict(after.codes)
        keys = [-1 if text is None else codes.setdefault(text, len(codes)) for text in texts]
        return cls(np.asarray(keys, dtype=np.int32), codes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The texts by their numbers."""
        return tuple(self.codes)


def literal(text: str) -> str:
    """The regular expression of exactly this text, marks escaped only where they mean something."""
    return "".join({"\n": "\\n", "\t": "\\t"}.get(c, f"\\{c}" if c in _META else c) for c in text)


def ending(texts: tuple[str, ...]) -> Predicate:
    """The leaf of places after one of some texts."""
    return nodes.PrecededBy(regex="|".join(literal(text) for text in texts))


def word_form(form: str) -> Callable[[tuple[str, ...]], Predicate]:
    """The leaf maker of words that match `form` with one of some texts in it."""
    return lambda texts: nodes.WordMatches(regex=form.format("|".join(literal(text) for text in texts)))


def token_form(form: str) -> Callable[[tuple[str, ...]], Predicate]:
    """The leaf maker of tokens that match `form` with one of some texts in it."""
    return lambda texts: nodes.TokenMatches(regex=form.format("|".join(literal(text) for text in texts)))


def token_leaf(offset: int, *, loose: bool) -> Callable[[tuple[str, ...]], Predicate]:
    """The leaf maker of tokens `offset` before the place, in any case and spacing if loose."""

    def made(texts: tuple[str, ...]) -> Predicate:
        token = nodes.Token(any_of=texts, ignore_case=loose, ignore_space=loose)
        return nodes.At(offset=offset, inner=token) if offset else token

    return made


def pair_table(texts: tuple[str, ...]) -> Predicate:
    """The disjunction over current tokens, each with the previous tokens that it was seen to need; a text holds both, joined
    by a NUL."""
    before: dict[str, list[str]] = {}
    for text in texts:
        current, previous = text.split("\0")
        before.setdefault(current, []).append(previous)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for current, previous_tokens in before.items():
        grouped.setdefault(tuple(sorted(previous_tokens)), []).append(current)
    entries = tuple(
        nodes.AllOf(of=(nodes.Token(any_of=tuple(now)), nodes.At(offset=1, inner=nodes.Token(any_of=earlier))))
        for earlier, now in grouped.items()
    )
    return entries[0] if len(entries) == 1 else nodes.AnyOf(of=entries)
