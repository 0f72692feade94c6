"""AUROC of many columns at once: its interval, its p against exchanged labels, and the best that chance finds."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Z95 = 1.959964


class Ranked(NamedTuple):
    """AUROC of each column (0.5 is chance, ties count half), and its z under exchanged labels, whose variance is exact, ties
    included."""

    auroc: NDArray[np.float64]
    z: NDArray[np.float64]


def ranks_of(values: Floats) -> NDArray[np.float64]:
    """(n, width) the rank of each value in its column, ties at their mean."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=0), dtype=np.float64)


def ranked(ranks: NDArray[np.float64], positive: Bools) -> Ranked:
    """The columns as detectors of the positive rows."""
    auroc, z = shuffled(ranks, positive[:, None].astype(np.float64))
    return Ranked(auroc[:, 0], z[:, 0])


def shuffled(ranks: NDArray[np.float64], labels: NDArray[np.float64]) -> Ranked:
    """The same for many sets of labels (n, k), all of one size: (width, k) each. A column without differences has z 0."""
    n = len(ranks)
    m = float(labels[:, 0].sum())
    centred = ranks - (n + 1) / 2
    sums = centred.T @ labels
    deviation = np.sqrt(m * (n - m) / (n * (n - 1)) * np.square(centred).sum(axis=0))[:, None]
    z = np.divide(sums, deviation, out=np.zeros_like(sums), where=deviation > 1e-9)
    return Ranked(0.5 + sums / (m * (n - m)), z)


def p_values(z: NDArray[np.float64], *, two_sided: bool) -> NDArray[np.float64]:
    """Of z under exchanged labels, by the normal distribution: for few texts too large rather than too small."""
    from scipy.special import ndtr

    return np.asarray(2 * ndtr(-np.abs(z)) if two_sided else ndtr(-z), dtype=np.float64)


def interval(auroc: float, m: int, n: int) -> tuple[float, float]:
    """95 % interval of an AUROC of m positive and n negative observations, honest at 1 too.

    Source: Newcombe 2006, Statistics in Medicine 25:559 (method 5: Hanley & McNeil's variance at the bound itself).
    """

    def apart(bound: float) -> float:
        half = (m + n) / 2 - 1
        spread = bound * (1 - bound) * (1 + half * (1 - bound) / (2 - bound) + half * bound / (1 + bound)) / (m * n)
        return abs(auroc - bound) - Z95 * math.sqrt(spread)

    def crossing(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if apart(middle) <= 0 else (inside, middle)
        return (inside + outside) / 2

    return (0.0 if auroc <= 0 else crossing(auroc, 0.0)), (1.0 if auroc >= 1 else crossing(auroc, 1.0))
