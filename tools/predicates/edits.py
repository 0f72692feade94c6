"""Pairs: two edits of one place by one generator, one of which makes the predicate true and the other false.

Edited text is only ever compared with edited text: any edit makes text odd, and odd text quiets units.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate, canonical_json, leaves, walk
from neuronaut.tools.predicates.prepared import PER_DOCUMENT, RIGHT_CONTEXT, prepare
from neuronaut.tools.predicates.spots import Core, Spot, Spots, core_of, table_of
from neuronaut.tools.tokens import Tokens, tokens_from_ids

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
NextTokens = Callable[[Ints, Ints], NDArray[np.float64]]
Arm = Literal["keep_break", "make_placebo"]

CANDIDATES = 4  # replacements tried for each arm of a place
OVERSAMPLING = 3


@dataclass(frozen=True)
class EditedText:
    """Token ids (BOS included) and the position that is judged."""

    ids: tuple[int, ...]
    position: int


@dataclass(frozen=True)
class Pair:
    """Two edits of one place. `leaf` numbers the edited condition in `leaves(predicate)`."""

    arm: Arm
    leaf: int
    document: int
    true: EditedText
    false: EditedText


@dataclass(frozen=True)
class PairDraw:
    """The pairs, in test order, and how many places were given up and why."""

    pairs: tuple[Pair, ...]
    discarded: dict[str, int]


@dataclass(frozen=True)
class Source:
    """What edits are made from: the text, the unigram shares (d_vocab,), the model's next-token shares, a decode-encode test.

    next_tokens(ids (n, pos), positions (n,)) -> (n, d_vocab): the distribution of the token at each position.
    survives: whether ids come back the same from decoding and encoding.
    """

    tokens: Tokens
    unigram: NDArray[np.float64]
    next_tokens: NextTokens
    survives: Callable[[Sequence[tuple[int, ...]]], list[bool]]
    n_ctx: int

    @cached_property
    def starts_word(self) -> Bools:
        """(d_vocab,) the word-start class of each token."""
        return self.tokens.vocabulary.starts_word


def combine(predicate: Predicate, values: dict[Predicate, Bools]) -> Bools:
    """Truth of the predicate from the truth of its leaves."""
    if predicate in values:
        return values[predicate]
    parts = [combine(child, values) for child in predicate.children()]
    return np.asarray((np.logical_and if isinstance(predicate, nodes.AllOf) else np.logical_or).reduce(parts))


def draw_pairs(
    predicate: Predicate, source: Source, *, limit: int, leaf: int | None = None, avoid: Predicate | None = None
) -> PairDraw:
    """At most `limit` pairs for each leaf (or for one), at most 4 a document, in an order seeded by the predicate's hash.

    An edit of a leaf flips it and the predicate and leaves every other leaf as it was, or its place is discarded.
    avoid: a rival whose truth the two arms share where there is a choice.
    A condition that a single token makes true has make/placebo only (its negation: keep/break only). Where natural places
    are too few, the other conditions of a conjunction are made true first, in both arms alike.
    """
    seed = int.from_bytes(hashlib.sha256(canonical_json(predicate).encode()).digest()[:8], "big")
    parts, discarded, found = leaves(predicate), Counter[str](), list[Pair]()
    values = {part: holds(part, source.tokens) for part in parts}
    for number, part in enumerate(parts):
        if leaf is not None and number != leaf:
            continue
        rng = np.random.default_rng([seed, number])
        pairs, lost = _LeafEdits(predicate, parts, number, source, values, rng, avoid).pairs(limit)
        if len(pairs) < limit and (ready := prepare(predicate, part, source.tokens, source.unigram, rng, limit)):
            there = replace(source, tokens=ready.tokens)
            known = {one: holds(one, ready.tokens) for one in parts}
            more, also = _LeafEdits(predicate, parts, number, there, known, rng, avoid, ready.places).pairs(
                limit - len(pairs)
            )
            pairs += more
            lost += also
        found += pairs
        discarded += lost
    order = np.random.default_rng(seed).permutation(len(found))
    return PairDraw(_capped([found[i] for i in order]), dict(discarded))


def _capped(pairs: list[Pair]) -> tuple[Pair, ...]:
    used: Counter[tuple[int, int]] = Counter()
    kept = []
    for pair in pairs:
        used[pair.document, pair.leaf] += 1
        if used[pair.document, pair.leaf] <= PER_DOCUMENT:
            kept.append(pair)
    return tuple(kept)


@dataclass
class _LeafEdits:
    predicate: Predicate
    parts: tuple[Predicate, ...]
    number: int
    source: Source
    values: dict[Predicate, Bools]
    rng: np.random.Generator
    avoid: Predicate | None
    among: Ints | None = None  # (n, 2) the only places to edit; all where None

    @cached_property
    def spots(self) -> Spots:
        return Spots(core_of(self.part), self.source.tokens, self.rng)

    @property
    def core(self) -> Core:
        return self.spots.core

    @property
    def part(self) -> Predicate:
        return self.parts[self.number]

    def pairs(self, limit: int) -> tuple[list[Pair], Counter[str]]:
        """Pairs of the arms that the leaf can have, at most `limit`, and what was given up."""
        arms: tuple[Arm, ...] = ("keep_break", "make_placebo")
        if self.spots.made_by_one_token:
            arms = ("keep_break",) if self.core.negated else ("make_placebo",)
        found, lost = list[Pair](), Counter[str]()
        for arm in arms:
            pairs, more = self.draw(arm, limit // len(arms))
            found += pairs
            lost += more
        return found, lost

    def draw(self, arm: Arm, limit: int) -> tuple[list[Pair], Counter[str]]:
        """Pairs of one arm for the leaf, and what was given up."""
        places = self._places(arm, limit * OVERSAMPLING)
        found, lost = list[Pair](), Counter[str]()
        for at in range(0, len(places), max(8, limit)):
            if len(found) >= limit:
                break
            pairs, more = self._try(arm, places[at : at + max(8, limit)])
            found += pairs
            lost += more
        return found[:limit], lost

    def _places(self, arm: Arm, n: int) -> Ints:
        """(n, 2) windows and positions where flipping the leaf alone flips the predicate; documents first, then places."""
        tokens, on = self.source.tokens, np.ones_like(self.values[self.part])
        with_leaf = combine(self.predicate, self.values | {self.part: on})
        without = combine(self.predicate, self.values | {self.part: ~on})
        held = self.values[self.part]
        pivotal = with_leaf & ~without & tokens.scored & (held if arm == "keep_break" else ~held)
        if self.among is not None:
            asked = np.zeros_like(pivotal)
            asked[tuple(self.among.T)] = True
            pivotal &= asked
        places = np.argwhere(pivotal)
        if not len(places):
            return places.reshape(0, 2)
        places = places[self.rng.permutation(len(places))]
        documents = tokens.documents[places[:, 0]]
        order = np.argsort(documents, kind="stable")
        ranks = np.empty(len(places), dtype=np.int64)
        sorted_documents = documents[order]
        starts = np.flatnonzero(np.append(True, sorted_documents[1:] != sorted_documents[:-1]))
        ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        rows = places[np.argsort(ranks, kind="stable")]
        return rows[: min(n, int((ranks < PER_DOCUMENT).sum()))]

    def _try(self, arm: Arm, places: Ints) -> tuple[list[Pair], Counter[str]]:
        rows, positions, owner, wanted = self._candidates(places)
        lost = Counter[str]()
        if not rows:
            lost["no edit"] += len(places)
            return [], lost
        good, rival = self._judged(places, rows, positions, owner, wanted)
        pairs, owners = [], np.array(owner)
        for place, (window, _) in enumerate(places):
            mine = np.flatnonzero((owners == place) & good)
            true, false = mine[wanted[mine]], mine[~wanted[mine]]
            if not len(true) or not len(false):
                lost["no true edit" if not len(true) else "no false edit"] += 1
                continue
            t, f = next(((t, f) for t in true for f in false if rival[t] == rival[f]), (true[0], false[0]))
            document = int(self.source.tokens.documents[window])
            edited = [EditedText(tuple(rows[i]), positions[i]) for i in (t, f)]
            pairs.append(Pair(arm, self.number, document, *edited))
        return pairs, lost

    def _judged(
        self, places: Ints, rows: list[list[int]], positions: list[int], owner: list[int], wanted: Bools
    ) -> tuple[Bools, Bools]:
        """(n_rows,) twice: whether a row flips the leaf and the predicate alone and survives; the rival's truth."""
        edited = tokens_from_ids(rows, self.source.tokens.vocabulary)
        index = (np.arange(len(rows)), np.array(positions))
        truth = {part: holds(part, edited)[index] for part in self.parts}
        good = edited.scored[index] & (combine(self.predicate, truth) == wanted) & (truth[self.part] == wanted)
        for part in self.parts:
            if part != self.part:
                good &= truth[part] == self.values[part][places[owner, 0], places[owner, 1]]
        candidates = np.flatnonzero(good)
        good[candidates] = self.source.survives([tuple(rows[i]) for i in candidates]) if len(candidates) else True
        rival = np.zeros(len(rows), dtype=bool) if self.avoid is None else holds(self.avoid, edited)[index]
        return good, rival

    def _candidates(self, places: Ints) -> tuple[list[list[int]], list[int], list[int], Bools]:
        """Edited rows with judged positions, the place each belongs to, and the truth that it should have."""
        if isinstance(self.core.predicate, nodes.Position):
            return self._moved(places, self.core.predicate)
        rows: list[list[int]] = []
        positions: list[int] = []
        owner: list[int] = []
        wanted: list[bool] = []
        keep = RIGHT_CONTEXT if any(isinstance(p, (nodes.Word, nodes.WordMatches)) for p in walk(self.predicate)) else 0
        found = {i: spot for i, (w, p) in enumerate(places) if (spot := self.spots.find(int(w), int(p))) is not None}
        if not found:
            return rows, positions, owner, np.array(wanted, dtype=bool)
        shares = self._shares(places[list(found)], [spot.position for spot in found.values()])
        choices = self.spots.choices()
        for (i, spot), share in zip(found.items(), shares, strict=True):
            window, pos = (int(x) for x in places[i])
            length = min(int(self.source.tokens.lengths[window]), pos + 1 + keep)
            base = self.source.tokens.ids[window, :length].tolist()
            for truth in (True, False):
                fit = self._fitting(spot, choices, truth != self.core.negated, (window, pos))
                for token in self._draw_tokens(share * fit, base[spot.position]):
                    rows.append([*base[: spot.position], token, *base[spot.position + 1 :]])
                    positions.append(pos)
                    owner.append(i)
                    wanted.append(truth)
        return rows, positions, owner, np.array(wanted, dtype=bool)

    def _fitting(self, spot: Spot, choices: tuple[Bools, Bools], truth: bool, place: tuple[int, int]) -> Bools:
        """(d_vocab,) tokens that may give the core its truth and leave the conditions on the same token as they were."""
        fit = choices[0 if truth else 1]
        if spot.token is not None:
            only = np.arange(len(fit)) == spot.token
            fit = only if truth else ~only
        for part in self.parts:
            table = None if part == self.part else table_of(part, self.source.tokens.vocabulary)
            if table is not None and spot.position == place[1]:
                fit = fit & (table == self.values[part][place])
        return fit

    def _shares(self, places: Ints, spots: list[int]) -> NDArray[np.float64]:
        """(n, d_vocab) half unigram of the word-start class of what stands there, half the model's own next-token shares."""
        tokens = self.source.tokens
        at = np.array(spots)
        ids = np.maximum(tokens.ids[places[:, 0], : int(at.max()) + 1], 0).astype(np.int64)
        predicted = self.source.next_tokens(ids, at)
        original = tokens.ids[places[:, 0], at]
        same_class = self.source.starts_word[None, :] == self.source.starts_word[original][:, None]
        unigram = self.source.unigram[None, :] * same_class
        unigram = unigram / unigram.sum(axis=1, keepdims=True)
        shares = 0.5 * unigram + 0.5 * predicted
        shares[:, list(tokens.vocabulary.special)] = 0.0
        return np.asarray(shares)

    def _draw_tokens(self, share: NDArray[np.float64], original: int) -> list[int]:
        chance = share.copy()
        chance[original] = 0.0
        possible = int((chance > 0).sum())
        if not possible:
            return []
        n = min(CANDIDATES, possible)
        return [int(t) for t in self.rng.choice(len(chance), size=n, replace=False, p=chance / chance.sum())]

    def _moved(self, places: Ints, inner: nodes.Position) -> tuple[list[list[int]], list[int], list[int], Bools]:
        """Rows whose prefix was cut or lengthened, so that the judged token stands elsewhere."""
        tokens = self.source.tokens
        rows: list[list[int]] = []
        positions: list[int] = []
        owner: list[int] = []
        wanted: list[bool] = []
        for i, (window, pos) in enumerate(places):
            first = int(np.argmax(tokens.scored[window]))
            head = tokens.ids[window, :first].tolist()
            body = tokens.ids[window, first : pos + 1].tolist()
            for truth in (True, False):
                for place in self._target_places(inner, truth, len(body) - 1):
                    moved = (
                        body[-place - 1 :]
                        if place < len(body)
                        else self._filler(int(window), place + 1 - len(body)) + body
                    )
                    if len(moved) == place + 1 and len(head) + len(moved) <= self.source.n_ctx:
                        rows.append([*head, *moved])
                        positions.append(len(head) + place)
                        owner.append(i)
                        wanted.append(truth)
        return rows, positions, owner, np.array(wanted, dtype=bool)

    def _target_places(self, inner: nodes.Position, truth: bool, current: int) -> list[int]:
        inside = range(inner.first, min(inner.last, self.source.n_ctx - 2) + 1)
        reach = range(min(self.source.n_ctx - 2, 2 * max(current, inner.first, 8)) + 1)
        options = [p for p in reach if (p in inside) == (truth != self.core.negated) and p != current]
        n = min(CANDIDATES, len(options))
        return [int(p) for p in self.rng.choice(options, size=n, replace=False)] if options else []

    def _filler(self, window: int, n: int) -> list[int]:
        tokens = self.source.tokens
        for _ in range(8):
            other = int(self.rng.integers(len(tokens)))
            body = tokens.ids[other][tokens.scored[other]]
            if tokens.documents[other] != tokens.documents[window] and len(body) >= n:
                return [int(t) for t in body[:n]]
        return []
