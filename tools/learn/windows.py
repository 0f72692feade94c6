"""Short windows of text with a unit's activations: what an explanation is scored on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.corpus import Split
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.tokens import Tokens

Floats = NDArray[np.float64]

LENGTH = 32  # tokens of a window
SHORTEST = 8  # a shorter text tells a judge too little
QUIET = 0.25  # of the way from the median to the top: below it a unit counts as not active


@dataclass(frozen=True, eq=False)
class Window:
    """At most 32 tokens of a document, special ones left out.

    split, row, start: where it lies. activations: (n,) in the model's units, the unit's sign
    applied. strengths: (n,) above the unit's median, 0 where it counts as not active.
    """

    document: int
    split: Split
    row: int
    start: int
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    activations: Floats = field(repr=False)
    strengths: Floats = field(repr=False)

    @property
    def top(self) -> float:
        """The largest strength; 0 where the unit is active nowhere."""
        return float(self.strengths.max())

    @property
    def text(self) -> str:
        """The tokens as text."""
        return "".join(self.pieces)

    @property
    def n_active(self) -> int:
        """Tokens at which the unit is active."""
        return int((self.strengths > 0).sum())


def strengths_of(activations: NDArray[np.floating], rule: FiringRule) -> Floats:
    """Activations above the median, 0 where they do not exceed a quarter of the way from there to the top.

    A neuron is hardly ever exactly 0; so it is made sparse, as the scores of sparse features want it.
    """
    above = activations.astype(np.float64) - rule.median
    return np.where(above > QUIET * (rule.top - rule.median), above, 0.0)


def windows_of(tokens: Tokens, activations: NDArray[np.floating], rule: FiringRule, split: Split) -> list[Window]:
    """The text cut into windows of 32 tokens side by side; the rest of a document, or a short document, from 8 tokens on.

    activations: (n_windows, n_pos) of the text, read with all that stands before a window in its document.
    """
    strengths, pieces = strengths_of(activations, rule), tokens.vocabulary.pieces
    found = []
    for row in range(len(tokens)):
        places = np.flatnonzero(tokens.scored[row])
        for at in range(0, len(places), LENGTH):
            part = places[at : at + LENGTH]
            if len(part) < SHORTEST:
                break
            ids = tuple(int(token) for token in tokens.ids[row, part])
            values = activations[row, part].astype(np.float64)
            texts = tuple(pieces[token] for token in ids)
            document, start = int(tokens.documents[row]), int(part[0])
            found.append(Window(document, split, row, start, ids, texts, values, strengths[row, part]))
    return found


def documents_of(windows: Sequence[Window]) -> frozenset[int]:
    """The documents that windows come from."""
    return frozenset(window.document for window in windows)
