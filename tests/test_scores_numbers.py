"""The numbers of the scores agree with independent implementations, also where documents are drawn several times."""

import numpy as np
import pytest
from sklearn import metrics

from neuronaut.tools.learn.arithmetic import (
    F1,
    Auroc,
    BalancedAccuracy,
    FittedPearson,
    Mean,
    Number,
    Pearson,
    Scored,
    estimate,
    expected_levels,
    scored,
    uncentred_r2,
)

RNG = np.random.default_rng(0)
N = 60
DOCUMENTS = RNG.integers(0, 12, N).tolist()
TRUTH, SAID = RNG.random(N) < 0.4, RNG.random(N) < 0.5
X = np.round(RNG.normal(size=N), 1)  # with ties
Y = X + RNG.normal(size=N)


def fitted(x: np.ndarray, y: np.ndarray) -> float:
    """Least squares on the data itself, then the correlation of the fit with the truth."""
    design = np.stack([y, np.ones_like(y)], axis=1)
    return float(np.corrcoef(design @ np.linalg.lstsq(design, x, rcond=None)[0], x)[0, 1])


ORACLES = {
    "balanced accuracy": (BalancedAccuracy(TRUTH, SAID), lambda i: metrics.balanced_accuracy_score(TRUTH[i], SAID[i])),
    "auroc": (Auroc(TRUTH, X), lambda i: metrics.roc_auc_score(TRUTH[i], X[i])),
    "pearson": (Pearson(X, Y), lambda i: np.corrcoef(X[i], Y[i])[0, 1]),
    "fitted": (FittedPearson(X, -Y), lambda i: fitted(X[i], -Y[i])),
    "f1": (F1(TRUTH, SAID), lambda i: metrics.f1_score(TRUTH[i], SAID[i])),
    "mean": (Mean(X), lambda i: X[i].mean()),
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_number_under_weights_is_that_of_items_repeated_so_often(name: str) -> None:
    number, oracle = ORACLES[name]
    once = scored(DOCUMENTS)
    weights = np.random.default_rng(1).integers(0, 4, (20, once.weights.shape[1])).astype(float)
    found = number(Scored(once.documents, weights))
    for value, row in zip(found, weights, strict=True):
        repeated = np.repeat(np.arange(N), row[once.documents].astype(int))
        assert value == pytest.approx(oracle(repeated), abs=1e-9)
    assert number(once)[0] == pytest.approx(oracle(np.arange(N)), abs=1e-9)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (BalancedAccuracy(TRUTH, TRUTH), 1.0),
        (BalancedAccuracy(TRUTH, ~TRUTH), 0.0),
        (BalancedAccuracy(TRUTH, np.ones(N)), 0.5),
        (BalancedAccuracy(TRUTH, np.zeros(N)), 0.5),
        (Auroc(TRUTH, TRUTH.astype(float)), 1.0),
        (Auroc(TRUTH, np.zeros(N)), 0.5),
        (Pearson(X, 3 * X - 7), 1.0),
        (Pearson(X, -X), -1.0),
        (FittedPearson(X, -X), 1.0),
        (F1(TRUTH, TRUTH), 1.0),
        (F1(TRUTH, ~TRUTH), 0.0),
    ],
)
def test_numbers_are_calibrated(number: Number, value: float) -> None:
    assert estimate(DOCUMENTS, number).value == pytest.approx(value, abs=1e-9)


def test_the_fit_of_the_published_score_hides_the_sign() -> None:
    signed, published = estimate(DOCUMENTS, Pearson(X, -Y)).value, estimate(DOCUMENTS, FittedPearson(X, -Y)).value
    assert signed < -0.5
    assert published == pytest.approx(-signed)


@pytest.mark.parametrize(
    "number", [Pearson(X, np.full(N, 2.0)), Auroc(np.ones(N), X), BalancedAccuracy(np.ones(N), SAID)]
)
def test_what_is_not_defined_is_no_number(number: Number) -> None:
    assert np.isnan(estimate(DOCUMENTS, number).value)
    assert estimate(DOCUMENTS, number).ci is None


def test_the_interval_resamples_documents_and_not_items() -> None:
    values = RNG.normal(size=40)
    alone = estimate(list(range(40)), Mean(values))
    copied = estimate(np.repeat(np.arange(40), 9).tolist(), Mean(np.repeat(values, 9)))
    assert copied.ci == pytest.approx(alone.ci)
    assert copied.documents == alone.documents == 40
    half = 1.96 * values.std() / np.sqrt(40)  # the closed form of the bootstrap's spread
    assert alone.ci == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06)
    assert estimate([3] * 40, Mean(values)).ci is None


def test_a_distribution_over_levels_has_its_mean() -> None:
    assert expected_levels(np.eye(11)).tolist() == list(range(11))
    assert expected_levels(np.full(11, 0.01)) == pytest.approx(5.0)  # what is left for other tokens counts for nothing
    assert expected_levels(np.array([0.2] + [0.0] * 9 + [0.6])) == pytest.approx(7.5)


def test_r2_of_openai_compares_with_0_and_not_with_the_mean() -> None:
    truth = np.array([1.0, 2.0, 3.0])
    assert uncentred_r2(truth, truth) == 1.0
    assert uncentred_r2(truth, np.zeros(3)) == 0.0
    assert uncentred_r2(truth, np.full(3, 2.0)) == pytest.approx(1 - 2 / 14)  # 0 if it were centred
