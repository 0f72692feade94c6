"""The statistics of verdicts against slow plain ones, and at the values where the answer is known."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from neuronaut.tools.look.reads import (
    FiringRule,
    Moments,
    agreement,
    compare_f1,
    compare_r2,
    count,
    coverage_by_band,
    document_maxima,
    f1_of,
    fast_f1,
    firing_rule,
    score_reads,
)
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.stats import (
    LAMBDAS,
    N_BOOTSTRAP,
    Ranking,
    average_precision,
    bet_path,
    clopper_pearson,
    document_weights,
    e_bh,
    e_value,
    mean_interval,
    percentile_of,
    permutation_p,
    ratio_samples,
    refuting_e_value,
    summed_by,
)
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids
from neuronaut.tools.trials.nulls import selection_null

VOCABULARY = Vocabulary(("<s>", *(f" w{i}" for i in range(30))), frozenset({0}))
RULE = FiringRule(0.5, 0.1, 0.9, 0.2, False)
SEEDS = range(4)

Activations = NDArray[np.float32]
Mask = NDArray[np.bool_]


def text(seed: int, n_documents: int = 30) -> Tokens:
    """Documents of one to three windows of unequal length."""
    rng = np.random.default_rng(seed)
    documents = [d for d in range(n_documents) for _ in range(int(rng.integers(1, 4)))]
    rows = [[0, *rng.integers(1, 31, int(rng.integers(3, 25))).tolist()] for _ in documents]
    return tokens_from_ids(rows, VOCABULARY, documents=documents)


def unit_on(tokens: Tokens, seed: int) -> tuple[Mask, Activations]:
    """A predicate, and an activation (with ties) that follows it loosely."""
    rng = np.random.default_rng(seed + 100)
    held = np.isin(tokens.ids, [1, 2, 3, 4])
    values = np.maximum(0, 0.6 * held + 0.35 * rng.standard_normal(held.shape)).round(2).astype(np.float32)
    return held, values


class Plain:
    """One predicate on one text, place by place, in Python. weights: how often each document counts."""

    def __init__(
        self, held: Mask, activations: Activations, tokens: Tokens, weights: dict[int, float] | None = None
    ) -> None:
        self.rows = [
            (float(activations[w, p]), bool(held[w, p]), 1.0 if weights is None else weights[int(tokens.documents[w])])
            for w, p in np.argwhere(tokens.scored)
        ]

    def precision(self, threshold: float) -> float:
        places = sum(w for _, h, w in self.rows if h)
        return sum(w for a, h, w in self.rows if h and a > threshold) / places if places else 0.0

    def coverage(self, threshold: float, baseline: float) -> float:
        mass = sum(w * (a - baseline) for a, _, w in self.rows if a > threshold)
        return sum(w * (a - baseline) for a, h, w in self.rows if h and a > threshold) / mass if mass else 0.0

    def f1(self, threshold: float, baseline: float) -> float:
        p, c = self.precision(threshold), self.coverage(threshold, baseline)
        return 2 * p * c / (p + c) if p + c else 0.0

    def average_precision(self) -> float:
        positives = sum(w for _, h, w in self.rows if h)
        if not positives:
            return 0.0
        area = before = 0.0
        for threshold in sorted({a for a, _, _ in self.rows}, reverse=True):
            hits = sum(w for a, h, w in self.rows if h and a >= threshold)
            counted = sum(w for a, _, w in self.rows if a >= threshold)
            area += (hits - before) * (hits / counted if counted else 0.0)
            before = hits
        return area / positives

    def r(self) -> float:
        total = sum(w for _, _, w in self.rows)
        mean_a = sum(w * a for a, _, w in self.rows) / total
        mean_h = sum(w * h for _, h, w in self.rows) / total
        both = sum(w * (a - mean_a) * (h - mean_h) for a, h, w in self.rows)
        spread_a = sum(w * (a - mean_a) ** 2 for a, _, w in self.rows)
        spread_h = sum(w * (h - mean_h) ** 2 for _, h, w in self.rows)
        return both / math.sqrt(spread_a * spread_h) if spread_a * spread_h > 0 else 0.0


def drawn_weights(tokens: Tokens, seed: int) -> list[dict[int, float]]:
    numbers = np.unique(tokens.documents).tolist()
    return [
        dict(zip(numbers, row, strict=True)) for row in document_weights(len(numbers), seed)[:N_BOOTSTRAP:100].tolist()
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_score_is_that_of_a_plain_loop_over_the_places(seed: int) -> None:
    tokens = text(seed)
    held, values = unit_on(tokens, seed)
    scores, plain = score_reads(held.astype(np.float32), values, tokens, RULE, seed=seed), Plain(held, values, tokens)
    found = {name: m.value for name, m in scores.measurements.items()}
    assert found["precision"] == pytest.approx(plain.precision(RULE.threshold))
    assert found["coverage"] == pytest.approx(plain.coverage(RULE.threshold, RULE.median))
    assert found["f1"] == pytest.approx(plain.f1(RULE.threshold, RULE.median))
    assert found["ap"] == pytest.approx(plain.average_precision())
    assert found["r"] == pytest.approx(plain.r())
    assert found["base_rate"] == pytest.approx(np.mean([a > RULE.threshold for a, _, _ in plain.rows]))
    flat, fires = values[tokens.scored], values[tokens.scored] > RULE.threshold
    mass = np.where(fires, flat.astype(np.float64) - RULE.median, 0.0)
    assert fast_f1([held[tokens.scored]], fires, mass)[0] == pytest.approx(found["f1"])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_bootstrap_draws_whole_documents_and_scores_each_draw(seed: int) -> None:
    tokens = text(seed)
    held, values = unit_on(tokens, seed)
    weights = document_weights(len(np.unique(tokens.documents)), seed)
    f1, precision, coverage = count(held, values, tokens, RULE).scores(weights)
    r = Moments.of(held.astype(np.float32), values, tokens).r(weights)
    for at, drawn in zip(range(0, N_BOOTSTRAP, 100), drawn_weights(tokens, seed), strict=True):
        assert sum(drawn.values()) == len(drawn)
        plain = Plain(held, values, tokens, drawn)
        assert precision[at] == pytest.approx(plain.precision(RULE.threshold))
        assert coverage[at] == pytest.approx(plain.coverage(RULE.threshold, RULE.median))
        assert f1[at] == pytest.approx(plain.f1(RULE.threshold, RULE.median))
        assert r[at] == pytest.approx(plain.r())
    scores = score_reads(held.astype(np.float32), values, tokens, RULE, seed=seed)
    assert scores.precision_low == pytest.approx(np.quantile(precision, 0.05))
    assert scores.coverage_low == pytest.approx(np.quantile(coverage, 0.05))
    assert scores.r_low == pytest.approx(np.quantile(r, 0.05))
    assert scores.measurements["coverage"].ci == pytest.approx(np.quantile(coverage, [0.025, 0.975]))


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_under_weights_is_that_of_repeated_places(seed: int) -> None:
    tokens = text(seed)
    held, values = unit_on(tokens, seed)
    flat, positives = values[tokens.scored].astype(np.float64), held[tokens.scored]
    times = np.random.default_rng(seed).poisson(1, len(flat))
    repeated = Ranking(np.repeat(flat, times)).average_precision(np.repeat(positives, times))
    assert average_precision(flat, positives, times.astype(np.float64)) == pytest.approx(repeated)
    for drawn in drawn_weights(tokens, seed)[:4]:
        weights = np.array(
            [drawn[int(d)] for d in np.broadcast_to(tokens.documents[:, None], held.shape)[tokens.scored]]
        )
        expected = Plain(held, values, tokens, drawn).average_precision()
        assert average_precision(flat, positives, weights) == pytest.approx(expected)
    several = np.stack([positives, ~positives, flat > 0.7, np.zeros_like(positives)])
    each = [average_precision(flat, one) for one in several]
    assert Ranking(flat).average_precisions(several) == pytest.approx(each)
    assert each[2:] == [1.0, 0.0]


def test_every_metric_is_1_for_the_unit_itself_and_at_chance_for_another() -> None:
    tokens = text(0, 400)
    rng = np.random.default_rng(1)
    held = rng.random(tokens.ids.shape) < 0.2
    exact = score_reads(held.astype(np.float32), held.astype(np.float32), tokens, RULE)
    assert {name: m.value for name, m in exact.measurements.items() if name != "base_rate"} == pytest.approx(
        dict.fromkeys(("f1", "precision", "coverage", "ap", "r"), 1.0)
    )
    assert (exact.precision_low, exact.coverage_low) == (1.0, 1.0)
    assert exact.r_low == pytest.approx(1.0)
    other = score_reads(held.astype(np.float32), rng.random(held.shape).astype(np.float32), tokens, RULE)
    for name in ("precision", "coverage", "ap", "r"):
        found = other.measurements[name]
        assert found.null_value is not None
        assert found.value == pytest.approx(found.null_value, abs=0.03)
        assert found.ci is not None
        assert found.ci[0] <= found.null_value <= found.ci[1]
    nothing = score_reads(np.zeros(held.shape, dtype=np.float32), held.astype(np.float32), tokens, RULE)
    assert [nothing.measurements[name].value for name in ("f1", "precision", "coverage", "ap", "r")] == [0.0] * 5
    opposite = score_reads((~held).astype(np.float32), held.astype(np.float32), tokens, RULE)
    assert opposite.measurements["r"].value == pytest.approx(-1.0)
    assert opposite.measurements["f1"].value == 0.0


def test_a_missing_label_costs_coverage_and_an_extra_label_costs_precision() -> None:
    tokens = text(2, 200)
    held, _ = unit_on(tokens, 2)
    values = held.astype(np.float32)
    found = {}
    for name, claimed in (("right", held), ("missing", held & (tokens.ids != 1)), ("extra", held | (tokens.ids == 9))):
        measured = score_reads(claimed.astype(np.float32), values, tokens, RULE).measurements
        found[name] = {metric: measured[metric].value for metric in ("precision", "coverage", "f1", "ap", "r")}
    assert found["missing"]["precision"] == 1.0
    assert found["missing"]["coverage"] == pytest.approx(0.75, abs=0.05)
    assert found["extra"]["coverage"] == 1.0
    assert found["extra"]["precision"] == pytest.approx(0.8, abs=0.05)
    for wrong in ("missing", "extra"):
        assert all(found[wrong][metric] < found["right"][metric] for metric in ("f1", "ap", "r"))


def test_scores_do_not_depend_on_the_order_of_the_windows() -> None:
    tokens = text(3)
    held, values = unit_on(tokens, 3)
    order = np.random.default_rng(0).permutation(len(tokens))
    shuffled = tokens.select(order)
    one = score_reads(held.astype(np.float32), values, tokens, RULE)
    other = score_reads(held[order].astype(np.float32), values[order], shuffled, RULE)
    for name, found in one.measurements.items():
        assert other.measurements[name].value == pytest.approx(found.value)
        assert other.measurements[name].ci == pytest.approx(found.ci)
    assert firing_rule(values[order], shuffled) == firing_rule(values, tokens)


def test_special_tokens_enter_no_score() -> None:
    tokens = text(4)
    held, values = unit_on(tokens, 4)
    loud, marked = values.copy(), held.copy()
    loud[:, 0], marked[:, 0] = 50.0, True
    one, other = (score_reads(h.astype(np.float32), a, tokens, RULE) for h, a in ((held, values), (marked, loud)))
    assert one.measurements == other.measurements
    assert firing_rule(loud, tokens) == firing_rule(values, tokens)


def test_firing_is_half_way_from_the_median_to_the_usual_largest_document() -> None:
    tokens = text(5, 60)
    _, values = unit_on(tokens, 5)
    values[np.argwhere(tokens.scored)[7][0], 3] = 900.0  # one outlier
    best: dict[int, float] = {}
    for w, p in np.argwhere(tokens.scored):
        d = int(tokens.documents[w])
        best[d] = max(best.get(d, -math.inf), float(values[w, p]))
    assert document_maxima(values, tokens).tolist() == [best[d] for d in sorted(best)]
    top = float(np.median(sorted(best.values(), reverse=True)[:20]))
    median = float(np.median(values[tokens.scored]))
    rule = firing_rule(values, tokens)
    assert isinstance(rule, FiringRule)
    assert (rule.top, rule.median) == pytest.approx((top, median))
    assert rule.threshold == pytest.approx(median + 0.5 * (top - median))
    assert not rule.dense
    few = np.where((tokens.documents < 19)[:, None], values, 0).astype(np.float32)
    assert firing_rule(few, tokens) == "too rare here"
    assert firing_rule(-np.maximum(values, 0), tokens) == "this side does not exist"
    dense = firing_rule((np.random.default_rng(0).random(values.shape) < 0.4).astype(np.float32), tokens)
    assert isinstance(dense, FiringRule)
    assert dense.dense


@pytest.mark.parametrize("seed", SEEDS)
def test_rivals_are_compared_on_the_same_drawn_documents(seed: int) -> None:
    tokens = text(seed)
    held, values = unit_on(tokens, seed)
    rival = held & (tokens.ids != 2)
    value, low, high = compare_f1(*(count(h, values, tokens, RULE) for h in (held, rival)), seed=seed)
    plain = [Plain(h, values, tokens).f1(RULE.threshold, RULE.median) for h in (held, rival)]
    assert value == pytest.approx(plain[0] - plain[1])
    assert low <= value <= high
    weights = document_weights(len(np.unique(tokens.documents)), seed)
    drawn = [count(h, values, tokens, RULE).scores(weights)[0] for h in (held, rival)]
    assert (low, high) == pytest.approx(np.quantile(drawn[0] - drawn[1], [0.025, 0.975]))
    unpaired = np.quantile(drawn[0] - drawn[1][::-1], [0.025, 0.975])
    assert high - low < unpaired[1] - unpaired[0]
    assert compare_f1(*(count(held, values, tokens, RULE) for _ in range(2)), seed=seed) == (0.0, 0.0, 0.0)
    moments = [Moments.of(h.astype(np.float32), values, tokens) for h in (held, rival)]
    correlations = [Plain(h, values, tokens).r() for h in (held, rival)]
    assert compare_r2(*moments, seed=seed)[0] == pytest.approx(correlations[0] ** 2 - correlations[1] ** 2)
    both, either = (sum(map(op, held[tokens.scored], rival[tokens.scored])) for op in (lambda a, b: a and b, max))
    assert agreement(held & tokens.scored, rival & tokens.scored) == pytest.approx(both / either)


def test_coverage_by_band_adds_up_to_the_coverage() -> None:
    tokens = text(1, 100)
    held, values = unit_on(tokens, 1)
    fires = np.sort(values[tokens.scored & (values > RULE.threshold)].astype(np.float64)) - RULE.median
    masses = [part.sum() for part in np.array_split(fires, 5)]
    bands = coverage_by_band(held, values, tokens, RULE)
    assert len(bands) == 5
    assert np.dot(bands, masses) / sum(masses) == pytest.approx(Plain(held, values, tokens).coverage(0.5, 0.1))
    assert f1_of(count(held, values, tokens, RULE)) == pytest.approx(Plain(held, values, tokens).f1(0.5, 0.1))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_e_value_is_the_mean_product_of_its_bets(seed: int) -> None:
    scores = np.random.default_rng(seed).uniform(-1, 1, 25).tolist()
    for n, value in enumerate(bet_path(scores).tolist(), start=1):
        products = [math.prod(1 + rate * s for s in scores[:n]) for rate in LAMBDAS]
        assert value == pytest.approx(sum(products) / len(products))
    assert e_value(scores) == pytest.approx(bet_path(scores)[-1])
    assert e_value(scores[::-1]) == pytest.approx(e_value(scores))
    against = [math.prod(1 + rate * (0.2 - s) / 1.2 for s in scores) for rate in LAMBDAS]
    assert refuting_e_value(scores) == pytest.approx(sum(against) / len(against))


def test_known_e_values() -> None:
    assert e_value([]) == refuting_e_value([]) == 1.0
    assert e_value([1.0]) == pytest.approx(1.5)
    assert e_value([0.0] * 50) == 1.0
    assert e_value([1.0] * 14) > 1000 > e_value([1.0] * 12)
    assert e_value([1.0] * 20 + [-1.0] * 2) > 1000 > e_value([1.0] * 18 + [-1.0] * 2)
    assert refuting_e_value([0.0] * 30) > 20 > refuting_e_value([0.0] * 20)
    assert refuting_e_value([0.2] * 500) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="-1, 1"):
        e_value([1.5])


@pytest.mark.parametrize("seed", range(20))
def test_e_bh_keeps_the_largest_set_that_its_definition_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(2, 3, int(rng.integers(1, 9)))).round(1).tolist()
    m, largest = len(values), 0
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(m), k) for k in range(1, m + 1)):
        if all(values[i] >= m / (0.05 * len(chosen)) for i in chosen):
            largest = max(largest, len(chosen))
    kept = e_bh(values)
    assert kept.sum() == largest
    assert min((values[i] for i in np.flatnonzero(kept)), default=math.inf) >= max(
        (values[i] for i in np.flatnonzero(~kept)), default=-math.inf
    )


def test_intervals_have_their_known_values() -> None:
    assert clopper_pearson(0, 200) == pytest.approx((0.0, 0.01827), abs=1e-4)
    assert clopper_pearson(190, 200) == pytest.approx((0.90997, 0.97577), abs=1e-4)
    assert mean_interval([1.0]) is None
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval == pytest.approx((2.5 - 3.18245 * 0.645497, 2.5 + 3.18245 * 0.645497), abs=1e-4)


def test_what_chance_does_as_well_as_a_value_counts_against_it() -> None:
    null = [0.1, 0.4, 0.4, 0.7]
    assert [percentile_of(value, null) for value in (0.0, 0.4, 0.5, 1.0)] == [0.0, 25.0, 75.0, 100.0]
    assert [permutation_p(value, null) for value in (0.0, 0.4, 0.5, 1.0)] == [1.0, 0.8, 0.4, 0.2]


def test_a_ratio_is_drawn_again_by_whole_documents() -> None:
    documents, values = np.array([7, 3, 7, 3, 9]), np.array([1.0, 2.0, 3.0, 4.0, 0.0])
    above, below = summed_by(documents, values, values > 0)
    assert (above.tolist(), below.tolist()) == ([6.0, 4.0, 0.0], [2.0, 2.0, 0.0])
    plain = [
        sum(n * a for n, a in zip(drawn, above, strict=True)) / total if (total := drawn @ below) else 0.0
        for drawn in document_weights(3, 5)
    ]
    assert ratio_samples(above, below, 5) == pytest.approx(plain)
    assert 0.0 in plain, "a sample of the document without any"


def test_a_claim_that_holds_nearly_everywhere_does_not_raise_the_bar_for_others() -> None:
    """Chance gives a predicate its base rate as average precision: 1 for one that always holds."""
    tokens = text(6, 200)
    _, values = unit_on(tokens, 6)
    values[~tokens.scored] = 0.0
    claim, broad = (
        parse_text("token(' w1', ' w2', ' w3', ' w4')"),
        [parse_text("starts_word"), parse_text("not(token(' w9'))")],
    )
    bars = [selection_null(claim, tried, values, tokens, 0) for tried in ([], broad)]
    ap = average_precision(values[tokens.scored].astype(np.float64), np.isin(tokens.ids, [1, 2, 3, 4])[tokens.scored])
    base = float(np.isin(tokens.ids, [1, 2, 3, 4])[tokens.scored].mean())
    assert base < bars[0] <= bars[1] < base + 0.05 < ap
    assert selection_null(broad[0], [], values, tokens, 0) == 1.0
    assert selection_null(broad[1], [], values, tokens, 0) > 0.9
    more = [parse_text(f"token(' w{i}')") for i in range(1, 31)]
    assert selection_null(claim, more, values, tokens, 0) > bars[0]  # the more was tried, the higher the bar
