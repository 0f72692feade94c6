"""A concept in the hypothesis language: the tokens at, or just before, the places that have it."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.concepts.places import Observed
from neuronaut.tools.predicates.nodes import At, Predicate, Token

OFFSETS = range(4)  # tokens back
PRECISE = 0.8  # share of a token's places that have the concept, from which on it is part of the list
MOST_TOKENS = 60
CARRIED = 0.5  # of the places with the concept, less the share of the others: what the list must tell on texts it was not made from


@dataclass(frozen=True)
class SaidAs:
    """A predicate that stands for a concept. told: share of the places with the concept where it holds; mistaken: of the others;
    both on texts that the list was not drawn up from."""

    predicate: Predicate
    told: float
    mistaken: float


def said_as(found: Observed) -> SaidAs | None:
    """The list of tokens that says a concept best, from the parts fit and rank; None where no list tells half of it, and for
    labels of whole texts."""
    if not len(found) or np.bincount(found.owners).max() > MOST_TOKENS:
        return None
    pieces = [_pieces(found, offset) for offset in OFFSETS]
    has = found.positive[found.owners]
    fitted, other = (found.parts[found.owners] == part for part in ("fit", "rank"))
    best: tuple[float, int, float, float] | None = None
    for offset, here in zip(OFFSETS, pieces, strict=True):
        known = set(_list(here[fitted], has[fitted]))
        holds = np.array([piece in known for piece in here])
        told, mistaken = float(holds[other & has].mean()), float(holds[other & ~has].mean())
        if best is None or told - mistaken > best[0] + 1e-9:
            best = (told - mistaken, offset, told, mistaken)
    assert best is not None
    worth, offset, told, mistaken = best
    both = fitted | other
    listed = _list(pieces[offset][both], has[both])
    if worth < CARRIED or not listed:
        return None
    token = Token(any_of=tuple(listed))
    return SaidAs(token if offset == 0 else At(offset=offset, inner=token), told, mistaken)


def _pieces(found: Observed, offset: int) -> NDArray[np.object_]:
    """(n_places,) the token so far back; "" before the text."""
    at = found.positions - offset
    ids = found.tokens.ids[found.windows, np.maximum(at, 0)]
    scored = found.tokens.scored[found.windows, np.maximum(at, 0)] & (at >= 0)
    pieces = found.tokens.vocabulary.pieces
    return np.array([pieces[i] if ok else "" for i, ok in zip(ids, scored, strict=True)], dtype=object)


def _list(pieces: NDArray[np.object_], has: NDArray[np.bool_]) -> list[str]:
    """The tokens that mostly have the concept, the most frequent first."""
    there, elsewhere = Counter(pieces[has]), Counter(pieces[~has])
    good = [one for one, n in there.items() if one and len(one) <= 100 and n >= PRECISE * (n + elsewhere[one])]
    return sorted(good, key=lambda one: (-there[one], one))[:MOST_TOKENS]
