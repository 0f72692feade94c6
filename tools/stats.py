"""The statistics of verdicts and studies: bets by document, bootstrap over documents, nulls, control of false claims."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LAMBDAS = (0.1, 0.3, 0.5, 0.7, 0.9)
MAX_LOG_E = 690.0  # a larger e-value is cut to this: it must fit a float, and less evidence is still evidence
N_BOOTSTRAP = 2000


def bet_path(scores: Sequence[float] | Array) -> Array:
    """(n,) running e-value of "the unit answers the predicate's edits" after each document.

    scores: (wins − losses) / discordant of each document in [−1, 1]. Under the null, whose mean score is at most 0, the
    path is a non-negative martingale started at 1: it may be looked at after every document. Empty for no document.
    Source: Waudby-Smith & Ramdas 2024, arXiv:2010.09686 (mixture of fixed bets).
    """
    bets = np.asarray(scores, dtype=np.float64)
    if np.any(np.abs(bets) > 1):
        raise ValueError("a document's score lies in [-1, 1]")
    factors = 1 + np.multiply.outer(np.array(LAMBDAS), bets)
    return np.asarray(np.exp(np.minimum(np.cumsum(np.log(factors), axis=1), MAX_LOG_E)).mean(axis=0))


def e_value(scores: Sequence[float] | Array) -> float:
    """The e-value after all documents; 1 for none."""
    path = bet_path(scores)
    return float(path[-1]) if len(path) else 1.0


def refuting_e_value(scores: Sequence[float] | Array, win_rate: float = 0.6) -> float:
    """Evidence against "documents are won at a rate of at least `win_rate`"; 1 for none.

    Under that hypothesis the mean score is at least 2·win_rate − 1, so that bets on the other side cannot gain.
    """
    least = 2 * win_rate - 1
    against = (least - np.asarray(scores, dtype=np.float64)) / (1 + least)
    if not len(against):
        return 1.0
    factors = 1 + np.multiply.outer(np.array(LAMBDAS), np.clip(against, -1, 1))
    return float(np.exp(np.minimum(np.log(factors).sum(axis=1), MAX_LOG_E)).mean())


def e_bh(e_values: Sequence[float], level: float = 0.05) -> NDArray[np.bool_]:
    """(m,) True for the claims that survive e-BH: expected share of false ones at most `level`, however dependent.

    Source: Wang & Ramdas 2022, arXiv:2009.02824.
    """
    e = np.asarray(e_values, dtype=np.float64)
    order = np.argsort(-e, kind="stable")
    enough = e[order] >= len(e) / (level * np.arange(1, len(e) + 1))
    kept = np.zeros(len(e), dtype=bool)
    if enough.any():
        kept[order[: int(np.flatnonzero(enough)[-1]) + 1]] = True
    return kept


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a share."""
    from scipy import stats as scipy_stats  # which takes a second

    interval = scipy_stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def mean_interval(values: Array | Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """t interval of a mean of independent values; None for fewer than two."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    from scipy import stats as scipy_stats

    half = float(scipy_stats.t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return float(x.mean()) - half, float(x.mean()) + half


@lru_cache(maxsize=8)
def document_weights(n_documents: int, seed: int, n: int = N_BOOTSTRAP) -> Array:
    """(n, n_documents) how often each document is drawn in each bootstrap sample; shared by all metrics that are compared.

    The array is kept for the next caller and cannot be written to.
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), size=n).astype(np.float64)
    weights.setflags(write=False)
    return weights


def summed_by(groups: NDArray[np.integer[Any]], *values: NDArray[Any]) -> Array:
    """(n_values, n_groups) sums of values (n,) over the members of each group, such as places of a document; groups rising."""
    numbers = np.unique(groups, return_inverse=True)[1]
    return np.stack([np.bincount(numbers, weights=one) for one in values])


def ratio_samples(above: Array, below: Array, seed: int = 0) -> Array:
    """(n,) bootstrap of the ratio of two sums over documents, such as a mean over places; above, below: (n_documents,).

    0 for a sample in which nothing is below.
    """
    weights = document_weights(len(below), seed)
    whole = weights @ below
    return np.divide(weights @ above, whole, out=np.zeros(len(weights)), where=whole > 0)


def percentile_of(value: float, null: ArrayLike) -> float:
    """Percent of the null values that lie below a value, 0 to 100; ties count for the null."""
    return float((np.asarray(null) < value).mean() * 100)


def permutation_p(value: float, null: ArrayLike) -> float:
    """p of a value among those of relabelled or random things: the share at least as large, one added to both counts.

    Source: Phipson & Smyth 2010, doi:10.2202/1544-6115.1585.
    """
    found = np.asarray(null)
    return (1 + int((found >= value).sum())) / (1 + len(found))


def holm(p: Sequence[float] | Array) -> list[float]:
    """p-values that hold together, however they depend. Source: Holm 1979."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)), 1.0)
    return [float(one) for one in adjusted]


def q_values(p: Array) -> Array:
    """The smallest false discovery rate at which each is kept, along the first axis. Source: Benjamini & Hochberg 1995."""
    order = np.argsort(p, axis=0)
    n = len(p)
    scaled = np.take_along_axis(p, order, axis=0) * (n / np.arange(1, n + 1).reshape(-1, *[1] * (p.ndim - 1)))
    rising = np.minimum.accumulate(scaled[::-1], axis=0)[::-1]
    found = np.empty_like(p)
    np.put_along_axis(found, order, np.minimum(rising, 1.0), axis=0)
    return found


def percentile_interval(samples: Array, level: float = 0.95) -> tuple[float, float]:
    """The central `level` of bootstrap samples."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ends(ranked: NDArray[np.floating]) -> NDArray[np.intp]:
    """The last place of each score."""
    return np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))


class Ranking:
    """Places in falling order of a score, sorted once for the many sets of positives that are compared with it."""

    def __init__(self, scores: Array) -> None:
        self._order: NDArray[np.integer] = np.argsort(-scores, kind="stable")
        self._ends = _ends(scores[self._order])

    @classmethod
    def known(cls, order: NDArray[np.integer], ranked: NDArray[np.floating]) -> "Ranking":
        """Of places whose order is known. ranked: their scores in this order, falling."""
        found = cls.__new__(cls)
        found._order, found._ends = order, _ends(ranked)
        return found

    def average_precisions(self, positives: NDArray[np.bool_]) -> Array:
        """(k,) area under precision over recall, the score the detector of each set of positives (k, n); ties share one
        threshold.

        1 is perfect, the share of positives is chance, and 0 stands for no positive at all.
        """
        starts = np.append(0, self._ends[:-1] + 1)
        hits = np.add.reduceat(positives[:, self._order], starts, axis=1, dtype=np.float64)
        found = np.cumsum(hits, axis=1)
        areas = (hits * (found / (self._ends + 1))).sum(axis=1)
        return np.divide(areas, found[:, -1], out=np.zeros_like(areas), where=found[:, -1] > 0)

    def average_precision(self, positives: NDArray[np.bool_], weights: Array | None = None) -> float:
        """The same for one set of positives (n,). weights: (n,) how often each place counts (for the bootstrap)."""
        if weights is None:
            return float(self.average_precisions(positives[None])[0])
        w = weights[self._order]
        hits = np.cumsum(np.where(positives[self._order], w, 0.0))[self._ends]
        if hits[-1] <= 0:
            return 0.0
        counted = np.cumsum(w)[self._ends]
        precision = np.divide(hits, counted, out=np.zeros_like(hits), where=counted > 0)
        return float((np.diff(hits, prepend=0.0) * precision).sum() / hits[-1])


def average_precision(scores: Array, positives: NDArray[np.bool_], weights: Array | None = None) -> float:
    """Area under precision over recall when places are ranked by score; see `Ranking.average_precisions`."""
    return Ranking(scores).average_precision(positives, weights)
