"""What can be said of each place of a text: keys (which token, which word, …) and marks (a digit, inside quotes, …)."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.tables import FOLDS
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import complexity
from neuronaut.tools.tokens import Tokens

MAX_OFFSET = 4
FAR = 10**6  # more tokens than a window holds
TAILS = (1, 2, 3, 4, 6, 8)
_TAIL_COST = 8  # more than `at` some tokens earlier, which reads better where both say nearly the same
_BRANCHES = 10  # of a regular expression, whose length is bounded
_ENTRIES = 20  # of a table of pairs: each is two leaves of the at most 64
_LONGEST = 100  # characters of a piece or word that a leaf may name
_META = frozenset(r".^$*+?{}[]\|()")
_KEPT = 4  # texts whose features stay in memory: explore and design of the unit at hand and of the one before
_MARKS = (('"', '"'), ("“", "”"), ("'", "'"), ("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"))
_SINCE_BYTES = 1 << 27
_SHAPES = ("^[a-z]", "^ [a-z]", "^[A-Z]", "^ [A-Z]", "^ ?[A-Z]+$", "[0-9]{2}", "^ ?[A-Za-z]$")
_FEATURES: "OrderedDict[int, Features]" = OrderedDict()


@dataclass(frozen=True)
class Family:
    """Keys of places, of which a set makes a leaf.

    keys: (n_places,) index into `names`, -1 where the place has none. node: the predicate of a set of keys.
    item_cost: items of the complexity that each key adds; own_cost: those of the leaf itself, one more for a loose form. max_keys: largest set.
    """

    name: str
    keys: NDArray[np.int32]
    names: tuple[str, ...]
    node: Callable[[tuple[str, ...]], Predicate]
    item_cost: int = 1
    own_cost: int = 1
    max_keys: int = 100


@dataclass(frozen=True)
class Flag:
    """A leaf without a choice inside: true or false at each place."""

    node: Predicate
    mask: NDArray[np.bool_]
    cost: int


def _coded(texts: Iterable[str | None]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The index of each text among the different ones, -1 for None, and the different ones in order of appearance."""
    codes: dict[str, int] = {}
    keys = [-1 if text is None else codes.setdefault(text, len(codes)) for text in texts]
    return np.asarray(keys, dtype=np.int32), tuple(codes)


def _literal(text: str) -> str:
    """The regular expression of exactly this text, marks escaped only where they mean something."""
    return "".join({"\n": "\\n", "\t": "\\t"}.get(c, f"\\{c}" if c in _META else c) for c in text)


def _ending(texts: tuple[str, ...]) -> Predicate:
    return nodes.PrecededBy(regex="|".join(_literal(text) for text in texts))


def _word_form(form: str) -> Callable[[tuple[str, ...]], Predicate]:
    """The leaf maker of words that match `form` with one of some texts in it."""
    return lambda texts: nodes.WordMatches(regex=form.format("|".join(_literal(text) for text in texts)))


def _token_form(form: str) -> Callable[[tuple[str, ...]], Predicate]:
    """The leaf maker of tokens that match `form` with one of some texts in it."""
    return lambda texts: nodes.TokenMatches(regex=form.format("|".join(_literal(text) for text in texts)))


@dataclass(frozen=True)
class Features:
    """Keys and marks of every scored place of `tokens`, window by window; computed once and used for every unit."""

    tokens: Tokens
    rows: NDArray[np.intp] = field(repr=False)
    cols: NDArray[np.intp] = field(repr=False)

    @classmethod
    def of(cls, tokens: Tokens) -> "Features":
        """The features of `tokens`, from memory where they are among the last texts looked at."""
        known = _FEATURES.get(id(tokens))
        if known is None or known.tokens is not tokens:
            rows, cols = np.nonzero(tokens.scored)
            known = _FEATURES[id(tokens)] = cls(tokens, rows, cols)
        _FEATURES.move_to_end(id(tokens))
        while len(_FEATURES) > _KEPT:
            _FEATURES.popitem(last=False)
        return known

    def __len__(self) -> int:
        return len(self.rows)

    def at_places(self, grid: NDArray[np.generic]) -> NDArray[np.generic]:
        """The values of a (n_windows, n_pos) array at the places, in order."""
        return grid[self.rows, self.cols]

    @cached_property
    def documents(self) -> NDArray[np.int64]:
        """(n_places,) document of each place, numbered from 0."""
        _, codes = np.unique(self.tokens.documents, return_inverse=True)
        return np.asarray(codes[self.rows], dtype=np.int64)

    @cached_property
    def order(self) -> NDArray[np.int32]:
        """(n_places,) number of scored tokens before the place in its window."""
        counts = np.cumsum(self.tokens.scored, axis=1) - 1
        return np.asarray(self.at_places(counts), dtype=np.int32)

    def grid(self, keys: NDArray[np.int32]) -> NDArray[np.int32]:
        """(n_windows, n_pos) keys, -1 at places that are not scored."""
        full = np.full(self.tokens.ids.shape, -1, dtype=np.int32)
        full[self.rows, self.cols] = keys
        return full

    def shifted(self, grid: NDArray[np.generic], offset: int, fill: int | bool) -> NDArray[np.generic]:
        """The values `offset` tokens earlier, at the places."""
        moved = np.full_like(grid, fill)
        moved[:, offset:] = grid[:, : grid.shape[1] - offset]
        return self.at_places(moved)

    def since(self, key: int) -> NDArray[np.int32]:
        """(n_places,) tokens since the token of a key last stood before the place; FAR where it never did. Remembered."""
        found = self._since.get(key)
        if found is None:
            grid = self.piece_grid == key
            columns = np.arange(grid.shape[1], dtype=np.int32)
            last = np.full(grid.shape, -FAR, dtype=np.int32)
            last[:, 1:] = np.maximum.accumulate(np.where(grid, columns, -FAR), axis=1)[:, :-1]
            found = self._since[key] = np.minimum(np.asarray(self.at_places(columns - last)), FAR).astype(np.int32)
            while len(self._since) * found.nbytes > _SINCE_BYTES:
                del self._since[next(iter(self._since))]
        return found

    @cached_property
    def _since(self) -> dict[int, NDArray[np.int32]]:
        return {}

    @cached_property
    def piece_grid(self) -> NDArray[np.int32]:
        """(n_windows, n_pos) keys of the tokens, -1 at places that are not scored."""
        return self.grid(self.pieces[0])

    @cached_property
    def pieces(self) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """Keys of the tokens: equal pieces share one."""
        return self._by_id(lambda piece: piece or None)

    def _by_id(self, form: Callable[[str], str | None]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        ids = np.asarray(self.at_places(self.tokens.ids), dtype=np.int64)
        used, codes = np.unique(ids, return_inverse=True)
        texts = (form(self.tokens.vocabulary.pieces[token]) for token in used.tolist())
        keys, names = _coded(text if text and len(text) <= _LONGEST else None for text in texts)
        return keys[codes], names

    @cached_property
    def families(self) -> dict[str, Family]:
        """Every family of keys by its name; "token" and "loose token" are about the current token alone."""
        found: list[Family] = []
        loose = self._by_id(lambda piece: piece.casefold().strip() or None)
        for name, (keys, names), alike in (("token", self.pieces, False), ("loose token", loose, True)):

            def token(texts: tuple[str, ...], alike: bool = alike) -> Predicate:
                return nodes.Token(any_of=texts, ignore_case=alike, ignore_space=alike)

            found.append(Family(name, keys, names, token, own_cost=1 + alike))
            grid = self.grid(keys)
            for offset in range(1, MAX_OFFSET + 1):

                def earlier(
                    texts: tuple[str, ...], offset: int = offset, token: Callable[..., Predicate] = token
                ) -> Predicate:
                    return nodes.At(offset=offset, inner=token(texts))

                moved = np.asarray(self.shifted(grid, offset, -1), dtype=np.int32)
                found.append(Family(f"{name} {offset} before", moved, names, earlier, own_cost=2 + alike))
        found += [*self._words(), *self.so_far, *self._token_parts(), *self._tails(), self._pairs()]
        return {family.name: family for family in found}

    def _words(self) -> list[Family]:
        words = [str(word) if 0 < len(word) <= _LONGEST else None for word in self.at_places(self.tokens.words)]
        keys, names = _coded(words)
        lower, lower_names = _coded(word and word.casefold() for word in words)
        found = [
            Family("word", keys, names, lambda texts: nodes.Word(any_of=texts)),
            Family("loose word", lower, lower_names, lambda texts: nodes.Word(any_of=texts, ignore_case=True)),
        ]
        for length in (1, 2, 3):
            for name, form, part in (
                ("word start", "^(?:{}).", slice(None, length)),
                ("word end", ".(?:{})$", slice(-length, None)),
            ):
                codes, ends = _coded(word[part] if len(word) > length else None for word in names)
                of_place = np.where(keys < 0, -1, codes[keys]) if len(codes) else keys
                found.append(
                    Family(f"{name} {length}", of_place.astype(np.int32), ends, _word_form(form), max_keys=_BRANCHES)
                )
        return found

    @cached_property
    def so_far(self) -> list[Family]:
        """The families of the word so far."""
        parts = [str(part) if 0 < len(part) <= _LONGEST else None for part in self.at_places(self.tokens.words_so_far)]
        exact, loose = _coded(parts), _coded(part and part.casefold() for part in parts)
        return [
            Family("word so far", *exact, lambda texts: nodes.WordSoFar(any_of=texts)),
            Family(
                "loose word so far", *loose, lambda texts: nodes.WordSoFar(any_of=texts, ignore_case=True), own_cost=2
            ),
        ]

    @cached_property
    def lists(self) -> list[tuple[Family, NDArray[np.float64]]]:
        """The families of which long lists may be made, each with (n_keys, FOLDS) places of its keys by document."""
        keys, names = self.pieces
        fold, found = self.documents % FOLDS, []
        for family in (Family("token", keys, names, lambda texts: nodes.Token(any_of=texts)), *self.so_far):
            known = family.keys >= 0
            cells = family.keys[known].astype(np.int64) * FOLDS + fold[known]
            places = np.bincount(cells, minlength=len(family.names) * FOLDS).reshape(-1, FOLDS).astype(np.float64)
            found.append((family, places))
        return found

    def _token_parts(self) -> list[Family]:
        """The first character of the token, with the space before it, and the last one."""
        found = []
        for name, form, part in (
            ("token start", "^(?:{})", lambda piece: piece[:2] if piece[0] == " " else piece[:1]),
            ("token end", "(?:{})$", lambda piece: piece[-1:]),
        ):
            keys, names = self._by_id(lambda piece, part=part: part(piece) if piece.strip() else None)  # type: ignore[misc]
            found.append(Family(name, keys, names, _token_form(form), max_keys=_BRANCHES))
        return found

    def _tails(self) -> list[Family]:
        starts = self.at_places(self.tokens.starts).tolist()
        texts = [self.tokens.texts[row] for row in self.rows.tolist()]
        found = []
        for length in TAILS:
            pairs = zip(texts, starts, strict=True)
            keys, names = _coded(text[at - length : at] if at >= length else None for text, at in pairs)
            found.append(Family(f"text {length} before", keys, names, _ending, own_cost=_TAIL_COST, max_keys=_BRANCHES))
        return found

    def _pairs(self) -> Family:
        """Current and previous token together; names are joined by a NUL, which no piece holds."""
        keys, names = self.pieces
        before = np.asarray(self.shifted(self.grid(keys), 1, -1), dtype=np.int64)
        both = np.where(before < 0, -1, keys.astype(np.int64) * len(names) + before)
        used, codes = np.unique(both, return_inverse=True)
        texts = tuple("" if pair < 0 else f"{names[pair // len(names)]}\0{names[pair % len(names)]}" for pair in used)
        return Family("pair", np.where(both < 0, -1, codes).astype(np.int32), texts, _pair_table, 4, 1, _ENTRIES)

    @cached_property
    def flags(self) -> tuple[Flag, ...]:
        """Leaves without keys that are true at some places and false at others, here or one token earlier."""
        leaves: list[Predicate] = [
            nodes.Digit(), nodes.Capitalised(), nodes.Punctuation(), nodes.StartsWord(), nodes.StartsSentence(),
            nodes.Repeated(min_gap=1), nodes.Induction(length=1), nodes.Induction(length=2),
        ]  # fmt: skip
        leaves += [nodes.Inside(open=left, close=right) for left, right in _MARKS]
        leaves += [nodes.TokenMatches(regex=shape) for shape in _SHAPES]
        found = []
        for leaf in leaves:
            grid = holds(leaf, self.tokens)
            found.append(Flag(leaf, np.asarray(self.at_places(grid), dtype=bool), complexity(leaf)))
            if not isinstance(leaf, nodes.Inside | nodes.Repeated | nodes.Induction | nodes.TokenMatches):
                earlier = np.asarray(self.shifted(grid, 1, False), dtype=bool)
                at_one = nodes.At(offset=1, inner=leaf)
                found.append(Flag(at_one, earlier, complexity(at_one)))
        return tuple(flag for flag in found if 0 < flag.mask.mean() < 1)

    @cached_property
    def flag_matrix(self) -> NDArray[np.float32]:
        """(n_flags, n_places) the masks as 0 and 1."""
        return np.array([flag.mask for flag in self.flags], dtype=np.float32).reshape(len(self.flags), len(self))


def _pair_table(texts: tuple[str, ...]) -> Predicate:
    """The disjunction over current tokens, each with the previous tokens that it was seen to need."""
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
