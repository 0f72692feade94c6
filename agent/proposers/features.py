"""What can be said of each place of a text: keys (which token, which word, …) and marks (a digit, inside quotes, …)."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.counts import Mask, Words, packed
from neuronaut.agent.proposers.families import (
    BRANCHES,
    ENTRIES,
    LONGEST,
    TAIL_COST,
    Coded,
    Family,
    Keys,
    ending,
    pair_table,
    token_form,
    token_leaf,
    word_form,
)
from neuronaut.agent.proposers.marks import Flag, marks_of
from neuronaut.agent.proposers.tables import FOLDS
from neuronaut.tools.predicates import nodes
from neuronaut.tools.tokens import Tokens

MAX_OFFSET = 4
LOOK_BACK = 32  # tokens before a place that are looked at one by one
FAR = 10**6  # more tokens than a window holds
TAILS = (1, 2, 3, 4, 6, 8)
_ENDS = frozenset("\n.,;!?")
_N_ENDS = 4
_KEPT = 6  # texts whose features stay in memory: explore, more of it, and design, with what was joined to them
_SINCE_BYTES = 1 << 27
_FEATURES: "OrderedDict[int, Features]" = OrderedDict()

Form = Callable[[str], str | None]


@dataclass(frozen=True)
class Features:
    """Keys and marks of every scored place of `tokens`, window by window; computed once and used for every unit.

    after: features whose keys these go on from, so that the same token or word has the same key in both.
    """

    tokens: Tokens
    after: "Features | None" = field(default=None, repr=False)

    @classmethod
    def of(cls, tokens: Tokens) -> "Features":
        """The features of `tokens`, from memory where they are among the last texts looked at."""
        known = _FEATURES.get(id(tokens))
        if known is None or known.tokens is not tokens:
            known = cls(tokens)
        return known.remembered()

    def remembered(self) -> "Features":
        """Itself, kept for the next time that its text is looked at."""
        _FEATURES[id(self.tokens)] = self
        _FEATURES.move_to_end(id(self.tokens))
        while len(_FEATURES) > _KEPT:
            _FEATURES.popitem(last=False)
        return self

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """(n_places,) window of each place."""
        return np.nonzero(self.tokens.scored)[0]

    @cached_property
    def cols(self) -> NDArray[np.intp]:
        """(n_places,) position of each place in its window."""
        return np.nonzero(self.tokens.scored)[1]

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
    def order(self) -> Keys:
        """(n_places,) number of scored tokens before the place in its window."""
        counts = np.cumsum(self.tokens.scored, axis=1) - 1
        return np.asarray(self.at_places(counts), dtype=np.int32)

    @cached_property
    def longest(self) -> int:
        """Scored tokens of the longest window, at least 1."""
        return int(self.order.max(initial=0)) + 1

    def grid(self, keys: Keys) -> Keys:
        """(n_windows, n_pos) keys, -1 at places that are not scored."""
        full = np.full(self.tokens.ids.shape, -1, dtype=np.int32)
        full[self.rows, self.cols] = keys
        return full

    def shifted(self, grid: NDArray[np.generic], offset: int, fill: int | bool) -> NDArray[np.generic]:
        """The values `offset` tokens earlier, at the places."""
        moved = np.full_like(grid, fill)
        moved[:, offset:] = grid[:, : grid.shape[1] - offset]
        return self.at_places(moved)

    def since(self, key: int) -> Keys:
        """(n_places,) tokens since the token of a key last stood before the place; FAR where it never did. Remembered."""
        found = self._ago.get(key)
        if found is None:
            found = self._ago[key] = self._since(key)
            while len(self._ago) * found.nbytes > _SINCE_BYTES:
                del self._ago[next(iter(self._ago))]
        return found

    def _since(self, key: int) -> Keys:
        grid = self.piece_grid == key
        columns = np.arange(grid.shape[1], dtype=np.int32)
        last = np.full(grid.shape, -FAR, dtype=np.int32)
        last[:, 1:] = np.maximum.accumulate(np.where(grid, columns, -FAR), axis=1)[:, :-1]
        return np.minimum(np.asarray(self.at_places(columns - last)), FAR).astype(np.int32)

    @cached_property
    def _ago(self) -> dict[int, Keys]:
        return {}

    @cached_property
    def piece_grid(self) -> Keys:
        """(n_windows, n_pos) keys of the tokens, -1 at places that are not scored."""
        return self.grid(self.pieces[0])

    def piece_before(self, places: NDArray[np.intp], offset: int) -> Keys:
        """(n,) keys of the tokens `offset` (at most LOOK_BACK) before some places, -1 where there is none."""
        return np.asarray(self._led[self._at[places] - offset])

    @cached_property
    def _led(self) -> Keys:
        """The grid of the tokens, LOOK_BACK places without one before each window, as one row."""
        return np.pad(self.piece_grid, [(0, 0), (LOOK_BACK, 0)], constant_values=-1).ravel()

    @cached_property
    def _at(self) -> NDArray[np.intp]:
        """(n_places,) where each stands in that row."""
        return self.rows * (self.tokens.ids.shape[1] + LOOK_BACK) + self.cols + LOOK_BACK

    @cached_property
    def ends(self) -> list[int]:
        """The keys of the most frequent tokens that end a line, a clause or a sentence."""
        keys, names = self.pieces
        frequent = np.argsort(-np.bincount(keys[keys >= 0], minlength=len(names)), kind="stable")
        return [int(key) for key in frequent if names[key].strip(" ") in _ENDS][:_N_ENDS]

    @cached_property
    def pieces(self) -> tuple[Keys, tuple[str, ...]]:
        """Keys of the tokens: equal pieces share one."""
        return self._by_id("piece", lambda piece: piece or None)

    def _by_id(self, name: str, form: Form) -> tuple[Keys, tuple[str, ...]]:
        """Keys of the tokens by a form of their text."""
        ids = np.asarray(self.at_places(self.tokens.ids), dtype=np.int64)
        used, at = np.unique(ids, return_inverse=True)
        texts = (form(self.tokens.vocabulary.pieces[token]) for token in used.tolist())
        coded = self._remember(
            name, Coded.of((text if text and len(text) <= LONGEST else None for text in texts), self._before(name))
        )
        return coded.keys[at], coded.names

    @cached_property
    def _coded(self) -> dict[str, Coded]:
        return {}

    def _remember(self, name: str, coded: Coded) -> Coded:
        return self._coded.setdefault(name, coded)

    def _before(self, name: str) -> Coded | None:
        """What the features before these have coded under a name."""
        if self.after is None:
            return None
        _ = self.after.families
        return self.after._coded[name]

    @cached_property
    def families(self) -> dict[str, Family]:
        """Every family of keys by its name; "token" and "loose token" are about the current token alone."""
        found: list[Family] = []
        loose = self._by_id("loose piece", lambda piece: piece.casefold().strip() or None)
        for name, (keys, names), alike in (("token", self.pieces, False), ("loose token", loose, True)):
            found.append(Family(name, keys, names, token_leaf(0, loose=alike), own_cost=1 + alike))
            grid = self.grid(keys)
            for offset in range(1, MAX_OFFSET + 1):
                moved = np.asarray(self.shifted(grid, offset, -1), dtype=np.int32)
                leaf = token_leaf(offset, loose=alike)
                found.append(Family(f"{name} {offset} before", moved, names, leaf, own_cost=2 + alike))
        found += [*self._words(), *self.so_far, *self._token_parts(), *self._tails(), self._pairs()]
        return {family.name: family for family in found}

    def _words(self) -> list[Family]:
        words = [str(word) if 0 < len(word) <= LONGEST else None for word in self.at_places(self.tokens.words)]
        coded = self._remember("word", Coded.of(words, self._before("word")))
        lower = (word and word.casefold() for word in words)
        loose = self._remember("loose word", Coded.of(lower, self._before("loose word")))
        found = [
            Family("word", coded.keys, coded.names, lambda texts: nodes.Word(any_of=texts)),
            Family("loose word", loose.keys, loose.names, lambda texts: nodes.Word(any_of=texts, ignore_case=True)),
        ]
        for length in (1, 2, 3):
            for name, form, part in (
                (f"word start {length}", "^(?:{}).", slice(None, length)),
                (f"word end {length}", ".(?:{})$", slice(-length, None)),
            ):
                keys, names = self._word_parts(name, coded, lambda word: word[part] if len(word) > length else None)  # noqa: B023
                found.append(Family(name, keys, names, word_form(form), max_keys=BRANCHES))
        return found

    def _word_parts(self, name: str, words: Coded, form: Form) -> tuple[Keys, tuple[str, ...]]:
        """Keys of the words by a part of each."""
        before = self._before(name)
        known = np.zeros(0, dtype=np.int32) if before is None else before.keys
        new = Coded.of((form(word) for word in words.names[len(known) :]), before)
        coded = self._remember(name, Coded(np.concatenate([known, new.keys]), new.codes))
        keys = np.where(words.keys < 0, -1, coded.keys[words.keys]) if len(coded.keys) else words.keys
        return keys.astype(np.int32), coded.names

    @cached_property
    def so_far(self) -> list[Family]:
        """The families of the word so far."""
        parts = [str(part) if 0 < len(part) <= LONGEST else None for part in self.at_places(self.tokens.words_so_far)]
        exact = self._remember("so far", Coded.of(parts, self._before("so far")))
        lower = (part and part.casefold() for part in parts)
        loose = self._remember("loose so far", Coded.of(lower, self._before("loose so far")))
        return [
            Family("word so far", exact.keys, exact.names, lambda texts: nodes.WordSoFar(any_of=texts)),
            Family(
                "loose word so far", loose.keys, loose.names,
                lambda texts: nodes.WordSoFar(any_of=texts, ignore_case=True), own_cost=2,
            ),
        ]  # fmt: skip

    @cached_property
    def lists(self) -> list[tuple[Family, NDArray[np.float64]]]:
        """The families of which long lists may be made, each with (n_keys, FOLDS) places of its keys by document."""
        keys, names = self.pieces
        fold, found = self.documents % FOLDS, []
        for family in (Family("token", keys, names, token_leaf(0, loose=False)), *self.so_far):
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
            keys, names = self._by_id(name, lambda piece, part=part: part(piece) if piece.strip() else None)  # type: ignore[misc]
            found.append(Family(name, keys, names, token_form(form), max_keys=BRANCHES))
        return found

    def _tails(self) -> list[Family]:
        starts = self.at_places(self.tokens.starts).tolist()
        texts = [self.tokens.texts[row] for row in self.rows.tolist()]
        found = []
        for length in TAILS:
            pairs, name = zip(texts, starts, strict=True), f"text {length} before"
            cut = (text[at - length : at] if at >= length else None for text, at in pairs)
            coded = self._remember(name, Coded.of(cut, self._before(name)))
            found.append(Family(name, coded.keys, coded.names, ending, own_cost=TAIL_COST, max_keys=BRANCHES))
        return found

    @cached_property
    def paired(self) -> NDArray[np.int64]:
        """(n_places,) current and previous token together as one number, -1 where there is no previous one."""
        keys, names = self.pieces
        before = np.asarray(self.shifted(self.grid(keys), 1, -1), dtype=np.int64)
        return np.where(before < 0, -1, keys.astype(np.int64) * len(names) + before)

    def _pairs(self) -> Family:
        """Current and previous token together; names are joined by a NUL, which no piece holds."""
        names, both = self.pieces[1], self.paired
        used, codes = np.unique(both, return_inverse=True)
        texts = tuple("" if pair < 0 else f"{names[pair // len(names)]}\0{names[pair % len(names)]}" for pair in used)
        return Family("pair", np.where(both < 0, -1, codes).astype(np.int32), texts, pair_table, 4, 1, ENTRIES)

    @cached_property
    def marks(self) -> tuple[Flag, ...]:
        """Leaves without keys, here or one token earlier."""
        return marks_of(self.tokens, self.at_places)

    @cached_property
    def flags(self) -> tuple[Flag, ...]:
        """Those of the marks that are true at some places and false at others."""
        return tuple(flag for flag in self.marks if 0 < flag.mask.mean() < 1)

    @cached_property
    def flag_masks(self) -> Mask:
        """(n_flags, n_places)."""
        return np.array([flag.mask for flag in self.flags], dtype=bool).reshape(len(self.flags), len(self))

    @cached_property
    def flag_words(self) -> Words:
        """(n_flags, n_words) the same, packed."""
        return packed(self.flag_masks)
