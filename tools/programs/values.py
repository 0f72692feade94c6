"""From what a part writes to a value: one of a few labels where it writes a few vectors, a number where it writes along a line."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LINE = 0.02  # of the first singular value: where the second is smaller, the vectors lie on a line
APART = 0.05  # of the range: numbers nearer to each other are one
SAME_VECTOR = 0.1  # of the largest distance from the mean
MAX_LABELS = 64  # of vectors; where there are more, those nearer to each other are taken together


@dataclass(frozen=True)
class Values:
    """The values of a part. centres: (n, d_model), or (n, 1) of numbers, ascending. direction: (d_model,) of numbers.

    exact: the vectors or numbers fell apart by themselves; where not, what lies near each other is taken together.
    """

    centres: Floats
    direction: Floats | None
    exact: bool

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.direction is not None

    def numbers(self, vectors: Floats) -> Floats:
        """(…,) coordinate along the line of (…, d_model)."""
        assert self.direction is not None
        return vectors @ self.direction

    def labels(self, vectors: Floats) -> Ints:
        """(…,) number of the nearest centre to each of (…, d_model)."""
        flat = vectors.reshape(-1, vectors.shape[-1])
        if self.direction is not None:
            found = nearest(self.centres[:, 0], self.numbers(flat))
        else:
            squares = (self.centres**2).sum(1)
            found = (squares - 2 * flat @ self.centres.T).argmin(1)
        return found.reshape(vectors.shape[:-1])


def nearest(centres: Floats, numbers: Floats) -> Ints:
    """Number of the nearest of ascending centres."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, numbers).astype(np.int64)


def find_values(vectors: Floats) -> Values:
    """The values of (n, d_model) vectors."""
    mean = vectors.mean(0)
    centred = vectors - mean
    _, singular, axes = np.linalg.svd(centred.T @ centred)
    strengths = np.sqrt(singular)
    if len(strengths) < 2 or strengths[1] <= LINE * strengths[0]:
        return _on_a_line(vectors, axes[0])
    radius = SAME_VECTOR * float(np.linalg.norm(centred, axis=1).max())
    centres = _leaders(vectors, radius)
    exact = centres is not None
    while centres is None:
        radius *= 1.5
        centres = _leaders(vectors, radius)
    return Values(centres, None, exact)


def _on_a_line(vectors: Floats, direction: Floats) -> Values:
    """Numbers, each the middle of those that lie together; bins of equal count where there are too many."""
    numbers = np.sort(vectors @ direction)
    gap = APART * max(float(numbers[-1] - numbers[0]), 1e-9)
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > gap) + 1)
    exact = all(part[-1] - part[0] <= gap for part in parts)
    if not exact:
        parts = np.array_split(numbers, MAX_LABELS)
    return Values(np.array([[part.mean()] for part in parts]), direction, exact)


def _leaders(vectors: Floats, radius: float) -> Floats | None:
    """Means of the vectors that lie within a radius of the first of them; None where there are too many."""
    left, centres = vectors, []
    while len(left):
        near = np.linalg.norm(left - left[0], axis=1) <= radius
        centres.append(left[near].mean(0))
        left = left[~near]
        if len(centres) > MAX_LABELS:
            return None
    return np.array(centres)
