"""Places made ready for a test of one condition: the conditions beside it are made true, the same way in both arms.

Where the conditions of a conjunction always come together in natural text, no place tells one from the others.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.spots import Spots, core_of
from neuronaut.tools.predicates.tree import leaves, walk
from neuronaut.tools.tokens import Tokens, tokens_from_ids

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

RIGHT_CONTEXT = 4  # tokens after the place that are kept where a word may go on
PER_DOCUMENT = 4
TRIED = 4  # places looked at for each one wanted


class Prepared(NamedTuple):
    """Edited windows and the place in each: (n, 2) windows and positions."""

    tokens: Tokens
    places: Ints


def beside(predicate: Predicate, leaf: Predicate, rng: np.random.Generator) -> list[Predicate]:
    """The conditions that must hold beside `leaf` for it to decide; of a disjunction beside it, one is drawn."""
    if leaf == predicate or not isinstance(predicate, nodes.AllOf | nodes.AnyOf | nodes.Modes):
        return []
    found: list[Predicate] = []
    for part in predicate.children():
        if leaf in leaves(part):
            found += beside(part, leaf, rng)
        elif isinstance(predicate, nodes.AllOf):
            found += _enough(part, rng)
    return found


def _enough(predicate: Predicate, rng: np.random.Generator) -> list[Predicate]:
    if isinstance(predicate, nodes.AnyOf):
        return _enough(predicate.of[int(rng.integers(len(predicate.of)))], rng)
    if isinstance(predicate, nodes.AllOf):
        return [leaf for part in predicate.of for leaf in _enough(part, rng)]
    return [predicate]


@dataclass(frozen=True)
class _Setting:
    """Conditions to make true, each with its truth in the text, its spots and the tokens that may go there."""

    tokens: Tokens
    unigram: NDArray[np.float64]
    rng: np.random.Generator
    truth: dict[Predicate, Bools]
    spots: dict[Predicate, Spots]
    fits: dict[Predicate, Bools]

    def row(self, window: int, pos: int, length: int) -> list[int] | None:
        """The first `length` ids of a window with the conditions made true at `pos`; None where they are or cannot be."""
        wanted: dict[int, Bools] = {}
        for part, truth in self.truth.items():
            if truth[window, pos]:
                continue
            spot = self.spots[part].find(window, pos)
            if spot is None:
                return None
            fit = self.fits[part] if spot.fits is None else spot.fits
            wanted[spot.position] = wanted[spot.position] & fit if spot.position in wanted else fit
        row: list[int] = self.tokens.ids[window, :length].tolist()
        for at, fit in wanted.items():
            chance = self.unigram * fit
            if not chance.any():
                return None
            row[at] = int(self.rng.choice(len(chance), p=chance / chance.sum()))
        return row if wanted else None


def prepare(
    predicate: Predicate,
    leaf: Predicate,
    tokens: Tokens,
    unigram: NDArray[np.float64],
    rng: np.random.Generator,
    n: int,
) -> Prepared | None:
    """At most `n` places, at most 4 a document, each in a window of its own with one token edited for each condition.

    unigram: (d_vocab,), what is put there is drawn from it. None where nothing stands beside the leaf, or no place allows
    it. Whether the conditions then hold is for the caller to check.
    """
    needed = beside(predicate, leaf, rng)
    if not needed:
        return None
    spots = {part: Spots(core_of(part), tokens, rng) for part in needed}
    fits = {part: spots[part].choices()[int(spots[part].core.negated)] for part in needed if not _stays(part)}
    setting = _Setting(tokens, unigram, rng, {part: holds(part, tokens) for part in needed}, spots, fits)
    possible = np.logical_and.reduce([tokens.scored, *(setting.truth[part] for part in needed if _stays(part))])
    right = RIGHT_CONTEXT if any(isinstance(p, nodes.Word | nodes.WordMatches) for p in walk(predicate)) else 0
    rows: list[list[int]] = []
    places: list[tuple[int, int]] = []
    documents: list[int] = []
    for window, pos in rng.permutation(np.argwhere(possible))[: TRIED * n].tolist():
        document = int(tokens.documents[window])
        if documents.count(document) == PER_DOCUMENT:
            continue
        row = setting.row(window, pos, min(int(tokens.lengths[window]), pos + 1 + right))
        if row is not None:
            places.append((len(rows), pos))
            rows.append(row)
            documents.append(document)
        if len(rows) == n:
            break
    if not rows:
        return None
    return Prepared(tokens_from_ids(rows, tokens.vocabulary, documents), np.array(places, dtype=np.int64))


def _stays(part: Predicate) -> bool:
    """Whether no one token makes the condition true at will, so that it must hold already."""
    return isinstance(core_of(part).predicate, nodes.Position | nodes.Repeated | nodes.Induction | nodes.PrecededBy)
