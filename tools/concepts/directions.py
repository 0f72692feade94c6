"""Directions that are fitted to labelled activations: the difference of means, and a linear probe."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
SHRINKAGE = 0.1  # of the covariance towards a ball: texts are few beside dimensions


def difference(values: Floats, positive: Bools) -> NDArray[np.float64]:
    """(d,) the mean of the positive rows less that of the others. Source: Marks & Tegmark 2023, arXiv:2310.06824."""
    x = values.astype(np.float64)
    return np.asarray(x[positive].mean(axis=0) - x[~positive].mean(axis=0))


def probe(values: Floats, positive: Bools) -> NDArray[np.float64]:
    """(d,) the direction that tells the classes best where both have one covariance (linear discriminant, shrunk)."""
    x = values.astype(np.float64)
    centred = x - np.where(positive[:, None], x[positive].mean(axis=0), x[~positive].mean(axis=0))
    n, d = x.shape
    ball = float(np.square(centred).sum()) / (n * d)
    weight, scale = (1 - SHRINKAGE) / n, max(SHRINKAGE * ball, 1e-12)
    if d <= n:
        return np.asarray(np.linalg.solve(weight * centred.T @ centred + scale * np.eye(d), difference(x, positive)))
    mean = difference(x, positive)  # Woodbury: fewer texts than dimensions
    inner = np.linalg.solve(np.eye(n) * scale / weight + centred @ centred.T, centred @ mean)
    return np.asarray((mean - centred.T @ inner) / scale)


def random_directions(d: int, n: int, seed: int) -> NDArray[np.float64]:
    """(d, n) of length 1, drawn uniformly."""
    made = np.random.default_rng(seed).standard_normal((d, n))
    return np.asarray(made / np.linalg.norm(made, axis=0))
