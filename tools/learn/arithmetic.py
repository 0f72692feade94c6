"""The numbers of the scores, each under weights of the documents, so that a bootstrap over documents is one call.

A `Number` gives (n_samples,), one value for each row of weights, and NaN where a sample leaves it undefined.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.stats import document_weights, percentile_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

LEAST_DEFINED = 0.95  # of the bootstrap samples; with fewer there is no interval


class Estimate(NamedTuple):
    """A number, its 95 % bootstrap interval over documents (None for fewer than two), and how many there are.

    value: NaN where it is not defined.
    """

    value: float
    ci: tuple[float, float] | None
    documents: int


class Scored(NamedTuple):
    """Items under document weights. documents: (n_items,) index into the columns of weights."""

    documents: Ints
    weights: Floats

    def sums(self, values: Floats) -> Floats:
        """(n_samples,) weighted sum of a value of each item."""
        by_document = np.bincount(self.documents, weights=values, minlength=self.weights.shape[1])
        return np.asarray(self.weights @ by_document, dtype=np.float64)


def scored(documents: Sequence[int], weights: Floats | None = None) -> Scored:
    """The items of some documents, each document once unless weights are given."""
    numbers, index = np.unique(np.asarray(documents), return_inverse=True)
    return Scored(index.astype(np.int64), np.ones((1, len(numbers))) if weights is None else weights)


class Number(Protocol):
    """A number of scored items, as a function of their weights."""

    def __call__(self, items: Scored) -> Floats:
        """(n_samples,)."""
        ...


def estimate(documents: Sequence[int], number: Number, seed: int = 0) -> Estimate:
    """The number on all items, with its interval over resampled documents."""
    once = scored(documents)
    n = once.weights.shape[1]
    value = float(number(once)[0])
    if n < 2 or not np.isfinite(value):
        return Estimate(value, None, n)
    samples = number(Scored(once.documents, document_weights(n, seed)))
    defined = samples[np.isfinite(samples)]
    if len(defined) < LEAST_DEFINED * len(samples):
        return Estimate(value, None, n)
    return Estimate(value, percentile_interval(defined), n)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


class Mean:
    """The mean of one value an item."""

    def __init__(self, values: Sequence[float] | Floats) -> None:
        self.values = np.asarray(values, dtype=np.float64)

    def __call__(self, items: Scored) -> Floats:
        """(n_samples,)."""
        return _ratio(items.sums(self.values), items.sums(np.ones(len(self.values))))


class BalancedAccuracy:
    """½ (share of the true ones said to be true + share of the false ones said to be false); 0.5 is chance."""

    def __init__(self, truth: Sequence[bool], said: Sequence[bool]) -> None:
        self.truth, self.said = np.asarray(truth, dtype=bool), np.asarray(said, dtype=bool)

    def __call__(self, items: Scored) -> Floats:
        """(n_samples,)."""
        rates = []
        for which in (self.truth, ~self.truth):
            right = (which & (self.said == self.truth)).astype(np.float64)
            rates.append(_ratio(items.sums(right), items.sums(which.astype(np.float64))))
        return (rates[0] + rates[1]) / 2


class Auroc:
    """The chance that a positive has a larger value than a negative, ties counted half; 0.5 is chance."""

    def __init__(self, truth: Sequence[bool], values: Sequence[float] | Floats) -> None:
        self.truth, found = np.asarray(truth, dtype=bool), np.asarray(values, dtype=np.float64)
        positive, negative = found[self.truth][:, None], found[~self.truth][None]
        self._above = (positive > negative) + 0.5 * (positive == negative)

    def __call__(self, items: Scored) -> Floats:
        """(n_samples,)."""
        of_item = items.weights[:, items.documents]
        positive, negative = of_item[:, self.truth], of_item[:, ~self.truth]
        return _ratio(((positive @ self._above) * negative).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


class Pearson:
    """The correlation of two values over all items together; not defined where one of them does not vary."""

    def __init__(self, one: Sequence[float] | Floats, other: Sequence[float] | Floats) -> None:
        self.one, self.other = (np.asarray(values, dtype=np.float64) for values in (one, other))

    def __call__(self, items: Scored) -> Floats:
        """(n_samples,)."""
        x, y = self.one - self.one.mean(), self.other - self.other.mean()
        n, sx, sy = (items.sums(values) for values in (np.ones_like(x), x, y))
        sxx, syy, sxy = (items.sums(values) for values in (x * x, y * y, x * y))
        spread = (sxx * n - sx**2) * (syy * n - sy**2)
        scale = (sxx * n) * (syy * n)
        varies = spread > 1e-12 * np.maximum(scale, 1e-300)
        return np.divide(sxy * n - sx * sy, np.sqrt(np.maximum(spread, 0)), out=np.full(n.shape, np.nan), where=varies)


class FittedPearson(Pearson):
    """The correlation with `other` of a least-squares fit of it on `one`, on the scored data itself.

    The fit turns its slope to suit, so that this is the size of the correlation and never negative.
    """

    def __call__(self, items: Scored) -> Floats:
        """(n_samples,)."""
        return np.abs(super().__call__(items))


class F1:
    """Harmonic mean of precision and recall of places that fire."""

    def __init__(self, truth: Sequence[bool] | Bools, said: Sequence[bool] | Bools) -> None:
        self.truth, self.said = np.asarray(truth, dtype=bool), np.asarray(said, dtype=bool)

    def __call__(self, items: Scored) -> Floats:
        """(n_samples,)."""
        both, fires, held = (items.sums(x.astype(np.float64)) for x in (self.truth & self.said, self.truth, self.said))
        return _ratio(2 * both, fires + held)


def expected_levels(probabilities: Floats) -> Floats:
    """(…,) Σ k·p_k of distributions over 0 to 10, (…, 11), made to sum to 1."""
    total = probabilities.sum(axis=-1)
    return np.asarray((probabilities * np.arange(probabilities.shape[-1])).sum(axis=-1) / total)


def uncentred_r2(truth: Floats, simulated: Floats) -> float:
    """1 − Σ(truth − simulated)² / Σ truth²: the R² of OpenAI's code, which compares with 0 and not with the mean."""
    return float(1 - ((truth - simulated) ** 2).sum() / (truth**2).sum())
