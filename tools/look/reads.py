"""When does a neuron fire, and how well does a predicate say so: the scores of the reads side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.measurements import Measurement
from neuronaut.tools.stats import Ranking, document_weights, percentile_interval
from neuronaut.tools.tokens import Tokens

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOP_DOCUMENTS = 20  # the top is the median of so many largest per-document maxima: robust to one outlier
MIN_ACTIVE_DOCUMENTS = 20
MIN_TOP = 1e-6
DENSE = 0.25
AP_BOOTSTRAP = 100
TOO_RARE = "too rare here"
NO_SIDE = "this side does not exist"


@dataclass(frozen=True)
class FiringRule:
    """The unit fires where its activation exceeds `threshold` = median + (top − median) / 2, all from explore text.

    spread: interquartile range of the activation, the yardstick of dense units.
    """

    threshold: float
    median: float
    top: float
    spread: float
    dense: bool


def document_maxima(activations: NDArray[np.float32], tokens: Tokens) -> Floats:
    """(n_documents,) largest activation of each document, special tokens left out."""
    best = np.where(tokens.scored, activations, -np.inf).max(axis=1)
    numbers, inverse = np.unique(tokens.documents, return_inverse=True)
    maxima = np.full(len(numbers), -np.inf)
    np.maximum.at(maxima, inverse, best)
    return maxima[np.isfinite(maxima)]


def firing_rule(activations: NDArray[np.float32], tokens: Tokens) -> FiringRule | str:
    """The firing rule of a unit, or the reason why it has none: too rare here, or this side does not exist.

    A document counts as active when its largest activation exceeds the threshold's lower half: median + (top − median) / 4.
    """
    values = activations[tokens.scored].astype(np.float64)
    maxima = np.sort(document_maxima(activations, tokens))[::-1]
    if len(maxima) < MIN_ACTIVE_DOCUMENTS:
        return TOO_RARE
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    top = float(np.median(maxima[:TOP_DOCUMENTS]))
    if top <= MIN_TOP:
        return NO_SIDE
    if int((maxima > median + (top - median) / 4).sum()) < MIN_ACTIVE_DOCUMENTS or top <= median:
        return TOO_RARE
    threshold = float(median + (top - median) / 2)
    return FiringRule(threshold, float(median), top, float(high - low), bool((values > threshold).mean() > DENSE))


@dataclass(frozen=True)
class Counts:
    """Sufficient statistics by document; each (n_documents,). mass: activation above the median where the unit fires."""

    documents: NDArray[np.int64]
    places: Floats
    held: Floats
    fired: Floats
    both: Floats
    mass: Floats
    mass_held: Floats

    def scores(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """F1, precision, coverage under each row of document weights (n, n_documents); 0 where undefined."""
        held, both = weights @ self.held, weights @ self.both
        mass, mass_held = weights @ self.mass, weights @ self.mass_held
        precision = np.divide(both, held, out=np.zeros_like(held), where=held > 0)
        coverage = np.divide(mass_held, mass, out=np.zeros_like(held), where=mass > 0)
        total = precision + coverage
        f1 = np.divide(2 * precision * coverage, total, out=np.zeros_like(held), where=total > 0)
        return f1, precision, coverage


def count(held: Bools, activations: NDArray[np.float32], tokens: Tokens, rule: FiringRule) -> Counts:
    """The counts of one predicate. held: (n_windows, n_pos)."""
    scored = tokens.scored
    numbers, window_of = np.unique(tokens.documents, return_inverse=True)
    document = np.broadcast_to(window_of[:, None], tokens.ids.shape)[scored]
    h, a = held[scored], activations[scored].astype(np.float64)
    fires = a > rule.threshold
    mass = np.where(fires, a - rule.median, 0.0)

    def by_document(values: NDArray[np.generic]) -> Floats:
        return np.bincount(document, weights=values.astype(np.float64), minlength=len(numbers)).astype(np.float64)

    ones = np.ones(len(h))
    return Counts(
        numbers,
        by_document(ones),
        by_document(h),
        by_document(fires),
        by_document(h & fires),
        by_document(mass),
        by_document(mass * h),
    )


def f1_of(counts: Counts) -> float:
    """F1 of precision and coverage over all documents."""
    return float(counts.scores(np.ones((1, len(counts.documents))))[0][0])


def lower_bound(samples: Floats) -> float:
    """One-sided 95 % lower bound from bootstrap samples."""
    return float(np.quantile(samples, 0.05))


@dataclass(frozen=True)
class ReadScores:
    """All metrics of one predicate on one text, with the bounds that the verdict rule asks for."""

    counts: Counts
    measurements: dict[str, Measurement]
    precision_low: float
    coverage_low: float
    r_low: float


def score_reads(
    strength: NDArray[np.float32], activations: NDArray[np.float32], tokens: Tokens, rule: FiringRule, *, seed: int = 0
) -> ReadScores:
    """F1, precision, coverage, AP, r and the unit's base rate, each with a 95 % bootstrap interval by document.

    precision: share of the predicate's places at which the unit fires. coverage: share of the firing mass (baseline
    subtracted) where the predicate holds. F1: their harmonic mean, 0 nowhere to 1 exactly. AP: the activation as a detector
    of the predicate; its null value is the predicate's base rate. r: Pearson, null 0.
    """
    counts = count(strength > 0, activations, tokens, rule)
    weights = document_weights(len(counts.documents), seed)
    f1, precision, coverage = counts.scores(weights)
    point = [float(values[0]) for values in counts.scores(np.ones((1, len(counts.documents))))]
    rate = float(counts.fired.sum() / counts.places.sum())
    n = len(counts.documents)
    share = "share"
    found = {
        "f1": Measurement("f1", point[0], share, n, _around(point[0], f1), _nothing_specific(rate)),
        "precision": Measurement("precision", point[1], share, n, _around(point[1], precision), rate),
        "coverage": Measurement(
            "coverage", point[2], share, n, _around(point[2], coverage), float(counts.held.sum() / counts.places.sum())
        ),
        "base_rate": Measurement("base_rate", rate, "share of tokens", n),
    }
    found["ap"] = _ap(strength > 0, activations, tokens, weights[:AP_BOOTSTRAP], counts)
    found["r"], r_low = _correlation(Moments.of(strength, activations, tokens), weights)
    return ReadScores(counts, found, lower_bound(precision), lower_bound(coverage), r_low)


def _around(value: float, samples: Floats) -> tuple[float, float]:
    low, high = percentile_interval(samples)
    return min(low, value), max(high, value)


def _nothing_specific(rate: float) -> float:
    """F1 of the predicate that holds everywhere: precision is the base rate, coverage 1."""
    return 2 * rate / (1 + rate)


def _ap(held: Bools, activations: NDArray[np.float32], tokens: Tokens, weights: Floats, counts: Counts) -> Measurement:
    scored = tokens.scored
    _, window_of = np.unique(tokens.documents, return_inverse=True)
    document = np.broadcast_to(window_of[:, None], tokens.ids.shape)[scored]
    h, a = held[scored], activations[scored].astype(np.float64)
    ranking = Ranking(a)
    value = ranking.average_precision(h)
    samples = np.array([ranking.average_precision(h, row[document]) for row in weights[:AP_BOOTSTRAP]])
    return Measurement(
        "ap", value, "average precision", len(counts.documents), _around(value, samples), float(h.mean())
    )


@dataclass(frozen=True)
class Moments:
    """Sums by document, (6, n_documents), from which the correlation of a prediction with the activation follows."""

    sums: Floats

    @classmethod
    def of(cls, strength: NDArray[np.float32], activations: NDArray[np.float32], tokens: Tokens) -> "Moments":
        """The sums of 1, x, y, x², y², xy over the scored places; x and y are centred to keep digits."""
        scored = tokens.scored
        numbers, window_of = np.unique(tokens.documents, return_inverse=True)
        document = np.broadcast_to(window_of[:, None], tokens.ids.shape)[scored]
        x, y = strength[scored].astype(np.float64), activations[scored].astype(np.float64)
        x, y = x - x.mean(), y - y.mean()
        terms = (np.ones_like(x), x, y, x * x, y * y, x * y)
        return cls(np.stack([np.bincount(document, weights=term, minlength=len(numbers)) for term in terms]))

    def r(self, weights: Floats) -> Floats:
        """(n,) Pearson correlation under each row of document weights; 0 where either side is constant."""
        n, sx, sy, sxx, syy, sxy = (weights @ moment for moment in self.sums)
        variance = (sxx - sx**2 / n) * (syy - sy**2 / n)
        covariance = sxy - sx * sy / n
        return np.divide(covariance, np.sqrt(np.maximum(variance, 0)), out=np.zeros_like(n), where=variance > 1e-18)

    def r2(self, weights: Floats) -> Floats:
        """(n,) squared correlation; 0 where the prediction runs the wrong way."""
        return np.asarray(np.maximum(self.r(weights), 0.0) ** 2)


def _correlation(moments: Moments, weights: Floats) -> tuple[Measurement, float]:
    n = moments.sums.shape[1]
    value, samples = float(moments.r(np.ones((1, n)))[0]), moments.r(weights)
    return Measurement("r", value, "correlation", n, _around(value, samples), 0.0), lower_bound(samples)


def compare_r2(a: Moments, b: Moments, *, seed: int = 0) -> tuple[float, float, float]:
    """r² of `a` minus r² of `b` on the same text, with a 95 % interval from documents drawn together."""
    n = a.sums.shape[1]
    weights, whole = document_weights(n, seed), np.ones((1, n))
    value = float((a.r2(whole) - b.r2(whole))[0])
    return value, *_around(value, a.r2(weights) - b.r2(weights))


def coverage_by_band(
    held: Bools, activations: NDArray[np.float32], tokens: Tokens, rule: FiringRule, n_bands: int = 5
) -> list[float]:
    """Share of the firing mass where the predicate holds, in each of `n_bands` equal counts of firing places, weak ones
    first; empty where the unit fires at fewer places than bands."""
    fires = tokens.scored & (activations > rule.threshold)
    a, h = activations[fires].astype(np.float64) - rule.median, held[fires]
    if len(a) < n_bands:
        return []
    bands = np.array_split(np.argsort(a, kind="stable"), n_bands)
    return [float(a[band][h[band]].sum() / a[band].sum()) for band in bands]


def compare_f1(a: Counts, b: Counts, *, seed: int = 0) -> tuple[float, float, float]:
    """F1 of `a` minus F1 of `b` on the same text, with a 95 % interval from documents drawn together."""
    return _compared(a, b, 0, seed)


def compare_coverage(a: Counts, b: Counts, *, seed: int = 0) -> tuple[float, float, float]:
    """Coverage of `a` minus coverage of `b` on the same text, with a 95 % interval from documents drawn together."""
    return _compared(a, b, 2, seed)


def _compared(a: Counts, b: Counts, which: int, seed: int) -> tuple[float, float, float]:
    if not np.array_equal(a.documents, b.documents):
        raise ValueError("two predicates are compared on the same documents only")
    weights, whole = document_weights(len(a.documents), seed), np.ones((1, len(a.documents)))
    value = float((a.scores(whole)[which] - b.scores(whole)[which])[0])
    return value, *_around(value, a.scores(weights)[which] - b.scores(weights)[which])


def agreement(a: Bools, b: Bools) -> float:
    """Share of the places where either holds at which both do; 1 for two predicates that never hold."""
    either = int((a | b).sum())
    return float((a & b).sum() / either) if either else 1.0


def fast_f1(held: Sequence[Bools] | Bools, fires: Bools, mass: Floats) -> Floats:
    """(k,) F1 of k predicates over flat places: held (k, n), fires (n,), mass (n,) 0 where the unit does not fire."""
    h = np.asarray(held, dtype=np.float64)
    n, both, covered = h.sum(axis=1), h @ fires.astype(np.float64), h @ mass
    precision = np.divide(both, n, out=np.zeros_like(n), where=n > 0)
    coverage = covered / mass.sum() if mass.sum() > 0 else np.zeros_like(n)
    total = precision + coverage
    return np.divide(2 * precision * coverage, total, out=np.zeros_like(n), where=total > 0)
