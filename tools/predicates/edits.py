"""Pairs: two edits of one place by one generator, one of which makes the predicate true and the other false.

Edited text is only ever compared with edited text: any edit makes text odd, and odd text quiets units.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.moves import CANDIDATES, Candidates, moved
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.prepared import PER_DOCUMENT, RIGHT_CONTEXT
from neuronaut.tools.predicates.spots import Core, Spot, Spots, core_of, table_of
from neuronaut.tools.predicates.tree import walk
from neuronaut.tools.tokens import Tokens, tokens_from_ids

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
NextTokens = Callable[[NDArray[np.int32], Ints], NDArray[np.float64]]
Arm = Literal["keep_break", "make_placebo"]

OVERSAMPLING = 3
OTHER_CLASS = 1e-6  # weight of tokens of the other word-start class: drawn where no other fits


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
class Source:
    """What edits are made from: the text, the unigram shares (d_vocab,), the model's next-token shares, a decode-encode test.

    next_tokens(ids (n, pos), positions (n,)) -> (n, d_vocab): the distribution of the token at each position, from the tokens
    before it.
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


Chosen = tuple[int | None, int | None]


def _first(true: Ints, false: Ints, rival: Bools) -> Chosen:
    """The first row of each that the rival takes for alike, the first of each where there is no such pair."""
    for t in true.tolist():
        for f in false.tolist():
            if rival[t] == rival[f]:
                return t, f
    return (int(true[0]) if len(true) else None), (int(false[0]) if len(false) else None)


def combine(predicate: Predicate, values: dict[Predicate, Bools]) -> Bools:
    """Truth of the predicate from the truth of its leaves."""
    if predicate in values:
        return values[predicate]
    parts = [combine(child, values) for child in predicate.children()]
    return np.asarray((np.logical_and if isinstance(predicate, nodes.AllOf) else np.logical_or).reduce(parts))


@dataclass
class LeafEdits:
    """The edits of one condition of a predicate: where, with what, and whether they flip it alone."""

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
        if (possible := self.spots.possible()) is not None:
            pivotal &= possible
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
        made, lost = self._candidates(places), Counter[str]()
        if not made.rows:
            lost["no edit"] += len(places)
            return [], lost
        good, rival = self._judged(places, made)
        pairs, chosen = list[Pair](), self._survivors(len(places), made, good, rival)
        for (window, _), (t, f) in zip(places, chosen, strict=True):
            if t is None or f is None:
                lost["no true edit" if t is None else "no false edit"] += 1
                continue
            document = int(self.source.tokens.documents[window])
            edited = [EditedText(tuple(made.rows[i]), made.positions[i]) for i in (t, f)]
            pairs.append(Pair(arm, self.number, document, *edited))
        return pairs, lost

    def _survivors(self, n: int, made: Candidates, good: Bools, rival: Bools) -> list[Chosen]:
        """For each of n places the first true and the first false row that survive decoding and encoding and that the rival
        takes for alike, the first of each where it takes none so; None where no row is left. Only rows that may be chosen
        are decoded."""
        owners, wanted, alive = np.array(made.owner), np.array(made.wanted), good.copy()
        known = np.zeros(len(good), dtype=bool)
        rows = [np.flatnonzero((owners == place) & good) for place in range(n)]
        while True:
            chosen = [
                _first(mine[alive[mine] & wanted[mine]], mine[alive[mine] & ~wanted[mine]], rival) for mine in rows
            ]
            asked = [i for pair in chosen for i in pair if i is not None and not known[i]]
            if not asked:
                return chosen
            known[asked] = True
            alive[asked] = self.source.survives([tuple(made.rows[i]) for i in asked])

    def _judged(self, places: Ints, made: Candidates) -> tuple[Bools, Bools]:
        """(n_rows,) twice: whether a row flips the leaf and the predicate alone; the rival's truth."""
        edited = tokens_from_ids(made.rows, self.source.tokens.vocabulary)
        index, wanted = (np.arange(len(made.rows)), np.array(made.positions)), np.array(made.wanted)
        truth = {part: holds(part, edited)[index] for part in self.parts}
        good = edited.scored[index] & (combine(self.predicate, truth) == wanted) & (truth[self.part] == wanted)
        for part in self.parts:
            if part != self.part:
                good &= truth[part] == self.values[part][places[made.owner, 0], places[made.owner, 1]]
        rival = np.zeros(len(made.rows), dtype=bool) if self.avoid is None else holds(self.avoid, edited)[index]
        return good, rival

    def _candidates(self, places: Ints) -> Candidates:
        """Edited rows that may flip the leaf at the places, some for each truth."""
        if isinstance(self.core.predicate, nodes.Position):
            of = self.source
            return moved(places, self.core.predicate, of.tokens, of.n_ctx, self.rng, negated=self.core.negated)
        made = Candidates.none()
        keep = RIGHT_CONTEXT if any(isinstance(p, (nodes.Word, nodes.WordMatches)) for p in walk(self.predicate)) else 0
        found = {i: spot for i, (w, p) in enumerate(places) if (spot := self.spots.find(int(w), int(p))) is not None}
        if not found:
            return made
        shares = self._shares(places[list(found)], [spot.position for spot in found.values()])
        choices = self.spots.choices()
        for (i, spot), share in zip(found.items(), shares, strict=True):
            window, pos = (int(x) for x in places[i])
            length = min(int(self.source.tokens.lengths[window]), pos + 1 + keep)
            base = self.source.tokens.ids[window, :length].tolist()
            for truth in (True, False):
                fit = self._fitting(spot, choices, truth != self.core.negated, (window, pos))
                for token in self._draw_tokens(share * fit, base[spot.position]):
                    made.add([*base[: spot.position], token, *base[spot.position + 1 :]], pos, i, truth)
        return made

    def _fitting(self, spot: Spot, choices: tuple[Bools, Bools], truth: bool, place: tuple[int, int]) -> Bools:
        """(d_vocab,) tokens that may give the core its truth and leave the conditions on the same token as they were."""
        fit = choices[0 if truth else 1]
        if spot.fits is not None:
            fit = spot.fits if truth else ~spot.fits
        for part in self.parts:
            table = None if part == self.part else table_of(part, self.source.tokens.vocabulary)
            if table is not None and spot.position == place[1]:
                fit = fit & (table == self.values[part][place])
        return fit

    def _shares(self, places: Ints, spots: list[int]) -> NDArray[np.float64]:
        """(n, d_vocab) what a replacement is drawn from: for half of the places, by lot, the unigram of the word-start class
        of what stands there, for the others the model's own next-token shares."""
        tokens, at = self.source.tokens, np.array(spots)
        original = tokens.ids[places[:, 0], at]
        same_class = self.source.starts_word[None, :] == self.source.starts_word[original][:, None]
        shares = self.source.unigram[None, :] * np.where(same_class, 1.0, OTHER_CLASS)
        predicted = np.flatnonzero(self.rng.random(len(places)) < 0.5)
        if len(predicted):
            shares[predicted] = self.source.next_tokens(tokens.ids[places[predicted, 0]], at[predicted])
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
