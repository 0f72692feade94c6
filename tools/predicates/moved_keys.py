"""Two edits of one place, by one generator, that move the key which a claim names: the head should follow."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates.attends import (
    FIRST_QUERY,
    AfterDuplicate,
    Attends,
    Current,
    Duplicate,
    First,
    Offset,
    Previous,
    To,
    named_keys,
)
from neuronaut.tools.predicates.evaluate import holds, token_table
from neuronaut.tools.predicates.tree import leaves
from neuronaut.tools.tokens import Tokens, tokens_from_ids

Row = NDArray[np.int64]

PER_DOCUMENT = 4
TRIED = 6  # places for each pair
REACH = 32  # tokens before the query within which a token is put that is looked at or not


@dataclass(frozen=True)
class MovedKey:
    """The same query in two texts. make: the claim names `at_make` there; placebo: it does not name `at_placebo`.

    What is followed is a token (claims about places: it stands elsewhere in the placebo) or a place (claims about tokens:
    another token stands there).
    """

    document: int
    query: int
    make: tuple[int, ...]
    placebo: tuple[int, ...]
    at_make: int
    at_placebo: int


class _Edit(NamedTuple):
    make: Row
    placebo: Row
    at_make: int
    at_placebo: int


@dataclass(frozen=True)
class _Lot:
    """What replacements are drawn from. share: (d_vocab,), zero at special tokens."""

    rng: np.random.Generator
    share: NDArray[np.float64]

    def tokens(self, n: int, *, but: Row | None = None, among: NDArray[np.bool_] | None = None) -> list[int] | None:
        """`n` different tokens, those of `but` left out where others are left; None where there are too few."""
        chance = self.share if among is None else self.share * among
        if but is not None:
            fresh = chance.copy()
            fresh[but] = 0.0
            chance = fresh if (fresh > 0).sum() >= n else chance
        if (chance > 0).sum() < n:
            return None
        found: list[int] = self.rng.choice(len(chance), size=n, replace=False, p=chance / chance.sum()).tolist()
        return found

    def others(self, token: int, n: int) -> Row:
        """(n,) tokens other than `token`."""
        chance = self.share.copy()
        chance[token] = 0.0
        return self.rng.choice(len(chance), size=n, p=chance / chance.sum())


def moved_keys(claim: Attends, tokens: Tokens, share: NDArray[np.float64], *, limit: int, seed: int) -> list[MovedKey]:
    """At most `limit` pairs, four a document, in random order. share: (d_vocab,) unigram shares.

    An edit that does not move the named key as it should, or that moves the claim's query, is discarded.
    """
    rng = np.random.default_rng(seed)
    special = np.fromiter(tokens.vocabulary.special, dtype=np.int64)
    weights = np.where(np.isin(np.arange(len(share)), special), 0.0, share)
    lot, used = _Lot(rng, weights), Counter[int]()
    found: list[MovedKey] = []
    asked = tokens.scored & (np.arange(tokens.ids.shape[1]) > FIRST_QUERY)
    if claim.queries is not None and not isinstance(claim.key, Current | Duplicate | AfterDuplicate):
        asked = asked & holds(claim.queries, tokens)
    queries = np.argwhere(asked)
    drawn: list[MovedKey] = []
    for window, query in rng.permutation(queries)[: TRIED * limit].tolist():
        row = tokens.ids[window, : query + 1].astype(np.int64)
        edit = _edit(claim, row, query, lot, tokens)
        if edit is not None:
            document = int(tokens.documents[window])
            make, placebo = tuple(edit.make.tolist()), tuple(edit.placebo.tolist())
            drawn.append(MovedKey(document, query, make, placebo, edit.at_make, edit.at_placebo))
    for pair in _as_claimed(claim, drawn, tokens):
        if used[pair.document] < PER_DOCUMENT and len(found) < limit:
            used[pair.document] += 1
            found.append(pair)
    return found


def _as_claimed(claim: Attends, pairs: list[MovedKey], tokens: Tokens) -> Iterator[MovedKey]:
    """The pairs of which the claim names the followed place in the first text and not in the second."""
    if not pairs:
        return
    made = tokens_from_ids([pair.make for pair in pairs], tokens.vocabulary)
    other = tokens_from_ids([pair.placebo for pair in pairs], tokens.vocabulary)
    first, second = named_keys(claim, made), named_keys(claim, other)
    for number, pair in enumerate(pairs):
        right = first[number, pair.query, pair.at_make] and not second[number, pair.query, pair.at_placebo]
        if right and (claim.queries is None or _asked(claim, other, number, pair.query)):
            yield pair


def _asked(claim: Attends, texts: Tokens, window: int, query: int) -> bool:
    """Whether the claim still speaks of the query."""
    assert claim.queries is not None
    return bool(holds(claim.queries, texts)[window, query])


def _edit(claim: Attends, row: Row, query: int, lot: _Lot, tokens: Tokens) -> _Edit | None:
    """One pair of texts up to the query; None where this place does not allow one."""
    begins = int(np.argmax(~np.isin(row, list(tokens.vocabulary.special)))) if len(row) else 0
    match claim.key:
        case Previous():
            return _swapped(row, query - 1, query, lot)
        case Offset():
            return _swapped(row, query - claim.key.n, query, lot)
        case Current():
            return _swapped(row, query, query, lot, claim, tokens)
        case First():
            return _swapped(row, begins, query, lot)
        case Duplicate():
            return _repeated(row, query, lot, behind=0, claim=claim, tokens=tokens)
        case AfterDuplicate():
            return _repeated(row, query, lot, behind=1, claim=claim, tokens=tokens)
        case To():
            return _put(row, query, lot, claim.key, tokens)
        case _ as never:
            assert_never(never)


def _swapped(
    row: Row, key: int, query: int, lot: _Lot, claim: Attends | None = None, tokens: Tokens | None = None
) -> _Edit | None:
    """Two new tokens, the followed one at the named place in one text and at another in the other, and the reverse."""
    others = [at for at in range(max(1, query - REACH), query + 1) if at not in (key, query)]
    if key < 1 or not others:
        return None
    other = int(lot.rng.choice(others))
    among = _may_ask(claim, tokens) if key == query else None
    drawn = lot.tokens(2, among=among)
    if drawn is None:
        return None
    make, placebo = row.copy(), row.copy()
    make[[key, other]] = drawn
    placebo[[other, key]] = drawn
    return _Edit(make, placebo, key, other)


def _may_ask(claim: Attends | None, tokens: Tokens | None) -> NDArray[np.bool_] | None:
    """(d_vocab,) the tokens of which the claim speaks as queries, where it looks at the token alone."""
    if claim is None or tokens is None or claim.queries is None or claim.queries.kind != "token":
        return None
    return token_table(claim.queries, tokens.vocabulary)


def _repeated(row: Row, query: int, lot: _Lot, *, behind: int, claim: Attends, tokens: Tokens) -> _Edit | None:
    """A new token at the query which stands, or does not stand, at an earlier place too; the key is `behind` it.

    Where the vocabulary allows it the new tokens are such as occur nowhere in the text; otherwise the query's is replaced
    wherever else it stands, in both texts alike.
    """
    places = list(range(max(1, query - REACH), query - behind))
    if not places:
        return None
    at = int(lot.rng.choice(places))
    among = _may_ask(claim, tokens)
    drawn = lot.tokens(2, but=row, among=among) or lot.tokens(2, but=row)
    if drawn is None:
        return None
    elsewhere = np.flatnonzero(row == drawn[0])
    instead = lot.others(drawn[0], len(elsewhere))
    make, placebo = row.copy(), row.copy()
    make[elsewhere] = placebo[elsewhere] = instead
    make[[at, query]] = drawn[0]
    placebo[[at, query]] = drawn[1], drawn[0]
    return _Edit(make, placebo, at + behind, at + behind)


def _put(row: Row, query: int, lot: _Lot, key: To, tokens: Tokens) -> _Edit | None:
    """A token at which the predicate holds, or one at which it does not, after the latest place at which it held."""
    part = key.inner
    if len(leaves(part)) != 1 or part.kind not in ("token", "token_matches", "digit", "capitalised", "punctuation"):
        return None
    table = token_table(part, tokens.vocabulary)
    held = np.flatnonzero(table[row[1:]]) + 1
    after = int(held[-1]) + 1 if len(held) else 1
    places = list(range(max(after, query - REACH), query))
    right, wrong = lot.tokens(1, among=table), lot.tokens(1, among=~table)
    if not places or right is None or wrong is None:
        return None
    at = int(lot.rng.choice(places))
    make, placebo = row.copy(), row.copy()
    make[at], placebo[at] = right[0], wrong[0]
    return _Edit(make, placebo, at, at)
