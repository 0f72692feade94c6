"""How likely a change is by chance: beside rows of random directions, and beside noise twins."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.001  # of one falsely found unit in a whole model that was only moved by noise, for each kind of change
TAIL = 0.9  # quantile from which on the tail of the noise is taken for exponential


def row_chances(changes: Floats, size: int) -> Floats:
    """(n,) p of each part of a matrix to hold so much of its change, were the change normal noise: the share of n equal
    parts of `size` numbers is Beta(size/2, (n-1)·size/2). changes: (n,) Euclidean norms; 1 for a matrix that did not change."""
    from scipy import stats as scipy_stats

    whole = float((changes**2).sum())
    if whole == 0 or len(changes) < 2:
        return np.ones(len(changes))
    found = scipy_stats.beta.sf(changes**2 / whole, size / 2, (len(changes) - 1) * size / 2)
    return np.asarray(found, dtype=np.float64)


def in_noises(own: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """How many times what noise moves it each unit was moved, and the same of each noise twin beside the others.

    own: (n_units,) mean squares; noise: (n_twins, n_units). Returns (n_units,) and (n_twins, n_units), 0 where nothing moved.
    """
    twins = len(noise)
    others = (noise.sum(axis=0) - noise) / (twins - 1)
    return _root_of_ratio(own, noise.mean(axis=0)), _root_of_ratio(noise, others)


def tail_chances(times: Floats, of_noise: Floats) -> Floats:
    """(n,) p of each `times` by the noise: the share of noise above it, and beyond the TAIL quantile an exponential tail of
    the squares, whose mean excess is the noise's own."""
    pool = of_noise[of_noise > 0] ** 2
    if not len(pool):
        return np.where(times > 0, 0.0, 1.0)
    start = float(np.quantile(pool, TAIL))
    excess = pool[pool > start] - start
    scale = float(excess.mean()) if len(excess) else 0.0
    squares = times**2
    above = 1 - np.searchsorted(np.sort(pool), squares, side="left") / len(pool)
    tail = (1 - TAIL) * np.exp(-(squares - start) / scale) if scale else np.zeros(len(squares))
    return np.where(squares > start, tail, above)


def _root_of_ratio(over: Floats, under: Floats) -> Any:
    return np.sqrt(np.divide(over, under, out=np.zeros_like(over + under), where=(under > 0) & (over > 0)))
