"""Activations as a few components: PCA, ICA and NMF."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Method = Literal["pca", "ica", "nmf"]
MOST_STEPS = 500  # of ICA and NMF


@dataclass(frozen=True)
class Parts:
    """Activations as scores (n, k) @ directions (k, width) + mean (width,)."""

    scores: Floats
    directions: Floats
    mean: Floats
    converged: bool

    def explained(self, x: Floats) -> float:
        """1 less the squared error over what the mean leaves (NMF, whose mean is 0: over the squared norm)."""
        error = np.square(x - self.mean - self.scores @ self.directions, dtype=np.float64).sum()
        return 1.0 - float(error / np.square(x - self.mean, dtype=np.float64).sum())


def parts_of(x: Floats, method: Method, k: int, seed: int) -> Parts:
    """k components of activations (n, width), the largest part of the squared norm first; signs make the long tail positive."""
    from sklearn.decomposition import NMF, PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        match method:
            case "pca":
                model = PCA(k, svd_solver="full" if x.shape[1] <= 2048 else "randomized", random_state=seed)
                scores = model.fit_transform(x)
                directions, mean = model.components_, model.mean_
            case "ica":
                model = FastICA(k, whiten="unit-variance", random_state=seed, max_iter=MOST_STEPS)
                scores = model.fit_transform(x)
                directions, mean = model.mixing_.T, model.mean_
            case "nmf":
                model = NMF(k, init="nndsvda", random_state=seed, max_iter=MOST_STEPS)
                scores = model.fit_transform(x)
                directions, mean = model.components_, np.zeros(x.shape[1])
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
    size = np.square(scores).sum(axis=0) * np.square(directions).sum(axis=1)
    order = np.argsort(-size, kind="stable")
    scores, directions = scores[:, order], directions[order]
    tail = np.where(np.power(scores - scores.mean(axis=0), 3).sum(axis=0) < 0, -1.0, 1.0)
    return Parts(
        (scores * tail).astype(np.float32),
        (directions * tail[:, None]).astype(np.float32),
        mean.astype(np.float32),
        converged,
    )
