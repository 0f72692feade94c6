"""A unit's firing at the places of a text, and how well sets of places tell it: shared by all baselines of a benchmark."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.look.reads import FiringRule, lower_bound
from neuronaut.tools.stats import document_weights
from neuronaut.tools.tokens import PAD, Tokens

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Activations = NDArray[np.float32]

PRECISION, COVERAGE = 0.6, 0.5  # what a SUPPORTED claim needs
NO_TOKEN = -1  # before the first token of a window


@dataclass(frozen=True)
class Places:
    """The scored places of one or more texts, in order. tokens: what the texts are; documents: never shared by two."""

    texts: tuple[Tokens, ...]

    @cached_property
    def documents(self) -> Ints:
        """(n_places,) document of each place, numbered from 0."""
        owners = [np.broadcast_to(text.documents[:, None], text.ids.shape)[text.scored] for text in self.texts]
        return np.unique(np.concatenate(owners), return_inverse=True)[1].astype(np.int64)

    @property
    def n_documents(self) -> int:
        """Documents with a scored place."""
        return int(self.documents.max(initial=-1)) + 1

    def tokens_before(self, offset: int) -> Ints:
        """(n_places,) id of the token `offset` places earlier in the window, special ones too; NO_TOKEN before it."""
        found = []
        for text in self.texts:
            moved = np.full(text.ids.shape, NO_TOKEN, dtype=np.int64)
            moved[:, offset:] = text.ids[:, : text.ids.shape[1] - offset]
            moved[moved == PAD] = NO_TOKEN
            found.append(moved[text.scored])
        return np.concatenate(found)

    def firing(self, activations: Sequence[Activations], rule: FiringRule) -> "Firing":
        """When the unit fires here. activations: (n_windows, n_pos) of each text, the unit's sign applied."""
        pairs = zip(activations, self.texts, strict=True)
        values = np.concatenate([grid[text.scored] for grid, text in pairs]).astype(np.float64)
        fires = values > rule.threshold
        return Firing(fires, np.where(fires, values - rule.median, 0.0))


@dataclass(frozen=True)
class Firing:
    """(n_places,) where a unit fires, and the activation above its median there, 0 elsewhere."""

    fires: Bools
    mass: Floats


@dataclass(frozen=True)
class Quality:
    """Precision (share of the places held at which the unit fires), coverage (share of its firing mass held), and their
    one-sided 95 % lower bounds over documents; 0 where undefined."""

    precision: float
    coverage: float
    precision_low: float
    coverage_low: float

    def as_json(self, **more: Any) -> dict[str, Any]:
        """The four numbers, rounded, and what else a row says."""
        return {**more, **{name: round(value, 4) for name, value in asdict(self).items()}}


def passes(row: dict[str, Any], *, low: bool = False) -> bool:
    """Whether a stored quality reaches what a SUPPORTED claim needs; `low`: with its lower bounds, as verdicts ask."""
    end = "_low" if low else ""
    return row[f"precision{end}"] >= PRECISION and row[f"coverage{end}"] >= COVERAGE


def qualities(held: Sequence[Bools], firing: Firing, places: Places, *, seed: int = 0) -> list[Quality]:
    """How well each of some sets of places, (n_places,) each, tells the firing of a unit on the same text."""
    if not held:
        return []
    n = places.n_documents
    sums = np.zeros((3, len(held), n))
    for number, mask in enumerate(held):
        at = np.flatnonzero(mask)
        documents = places.documents[at]
        for row, weights in enumerate((None, firing.fires[at], firing.mass[at])):
            sums[row, number] = np.bincount(documents, weights=weights, minlength=n)
    mass = np.bincount(places.documents, weights=firing.mass, minlength=n)
    weights = document_weights(n, seed)
    drawn = weights @ sums.transpose(0, 2, 1)
    low = _scores(drawn, (weights @ mass)[:, None])
    point = _scores(sums.sum(axis=2)[:, None], mass.sum()[None, None])
    return [
        Quality(float(p), float(c), lower_bound(ps), lower_bound(cs))
        for p, c, ps, cs in zip(*(part[0] for part in point), *(part.T for part in low), strict=True)
    ]


def _scores(sums: Floats, mass: Floats) -> tuple[Floats, Floats]:
    """Precision and coverage, (n, k) each, from (3, n, k) places, firing places and mass held, and (n, 1) mass in all; 0
    where nothing is held, and where the unit never fires."""
    places, fires, held = sums
    precision = np.divide(fires, places, out=np.zeros_like(places), where=places > 0)
    coverage = np.divide(held, mass, out=np.zeros_like(places), where=np.broadcast_to(mass > 0, held.shape))
    return precision, coverage
