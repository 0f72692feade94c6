"""How often the verdict statistics are wrong where the truth is known, by simulation.

Each limit is exact in theory; a simulated rate may exceed it by two standard errors. Beside each stands a rule that looks
as good and breaks the limit in the same simulation, so that the simulation can tell.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from neuronaut.memory.judge import ReadsCase as Case
from neuronaut.memory.judge import Rival, decide_reads
from neuronaut.tools.look.reads import Counts, compare_f1, lower_bound
from neuronaut.tools.stats import bet_path, document_weights, e_bh, e_value, refuting_e_value

Floats = NDArray[np.float64]

RUNS = 4000
LEVEL = 0.05


def within(rate: float, limit: float, runs: int = RUNS) -> bool:
    """Whether a rate of `runs` is at most the limit, but for two standard errors."""
    return rate <= limit + 2 * float(np.sqrt(limit * (1 - limit) / runs))


def documents(rng: np.random.Generator, n: int, win_rate: float, *, sticky: float) -> list[Floats]:
    """Outcomes 1 and -1 of one to four pairs a document. sticky: chance that a pair repeats the document's first one."""
    found = []
    for _ in range(n):
        own = np.where(rng.random(int(rng.integers(1, 5))) < win_rate, 1.0, -1.0)
        found.append(np.where(rng.random(len(own)) < sticky, own[0], own))
    return found


@pytest.mark.parametrize("sticky", [0.0, 0.5, 1.0])
def test_peeking_after_every_document_rarely_finds_an_effect_where_there_is_none(sticky: float) -> None:
    rng = np.random.default_rng(0)
    peaks, one_by_one, naive = [], [], []
    for _ in range(RUNS // 4):
        outcomes = documents(rng, 200, 0.5, sticky=sticky)
        scores = np.array([one.mean() for one in outcomes])
        peaks.append(bet_path(scores).max())
        one_by_one.append(bet_path(np.concatenate(outcomes)).max())
        n = np.arange(1, 201)
        z = np.cumsum(scores)[9:] / np.sqrt(np.maximum(np.cumsum(scores**2)[9:], 1.0))
        naive.append(float((z > 1.645).any()) if len(n) else 0.0)
    assert within(float(np.mean(np.array(peaks) >= 20)), LEVEL, RUNS // 4)
    assert np.mean(naive) > 0.15  # a plain test at 5 % after every document
    if sticky == 1.0:
        assert not within(float(np.mean(np.array(one_by_one) >= 20)), LEVEL, RUNS // 4)  # pairs as if independent


def test_the_bar_of_a_claim_is_passed_by_chance_once_in_a_thousand_at_most() -> None:
    rng = np.random.default_rng(1)
    scores = np.where(rng.random((20_000, 120)) < 0.5, 1.0, -1.0)
    passed = np.array([bet_path(row).max() >= 1000 for row in scores])
    assert within(float(passed.mean()), 0.001, len(passed))
    real = np.where(rng.random((500, 120)) < 0.8, 1.0, -1.0)
    assert np.mean([e_value(row) >= 1000 for row in real]) > 0.9


def test_a_unit_that_follows_the_claim_is_rarely_refuted() -> None:
    rng = np.random.default_rng(2)
    worst = np.where(rng.random((RUNS, 150)) < 0.6, 1.0, -1.0)
    refuted = np.mean([max(refuting_e_value(row[:n]) for n in range(10, 151, 20)) >= 20 for row in worst[: RUNS // 4]])
    assert within(float(refuted), LEVEL, RUNS // 4)
    idle = np.where(rng.random((200, 150)) < 0.5, 1.0, -1.0)
    assert np.mean([refuting_e_value(row) >= 20 for row in idle]) > 0.25


def counts(rng: np.random.Generator, n: int, precision: float, held: float = 10.0) -> Counts:
    """Counts by document of a claim whose places lie together in documents that differ in precision; coverage 0.9."""
    share = rng.beta(2 * precision, 2 * (1 - precision), n)
    places = rng.poisson(held, n).astype(np.float64)
    both = rng.binomial(places.astype(int), share).astype(np.float64)
    outside = rng.poisson(0.1 * held * precision, n).astype(np.float64)
    fired = both + outside
    return Counts(np.arange(n), np.full(n, 50.0), places, fired, both, fired, both)


@pytest.mark.parametrize(("n", "limit"), [(40, 0.1), (120, 0.08)])
def test_a_precision_that_is_just_too_low_rarely_passes(n: int, limit: float) -> None:
    """Of dependent places: documents are drawn, not places. The bound of a bootstrap is approximate: 10 or 8 % for 5 %."""
    rng = np.random.default_rng(n)
    weights, passed, by_place = document_weights(n, 0), [], []
    for _ in range(500):
        found = counts(rng, n, 0.6)
        passed.append(lower_bound(found.scores(weights)[1]) >= 0.6)
        hits, places = found.both.sum(), found.held.sum()
        by_place.append(hits / places - 1.645 * np.sqrt(0.24 / places) >= 0.6)
    assert np.mean(passed) <= limit
    assert np.mean(by_place) > 0.15
    assert np.mean([lower_bound(counts(rng, n, 0.85).scores(weights)[1]) >= 0.6 for _ in range(50)]) > 0.95


def test_a_rival_as_good_as_the_claim_is_rarely_beaten() -> None:
    rng = np.random.default_rng(3)
    beaten = [compare_f1(counts(rng, 80, 0.75), counts(rng, 80, 0.75))[1] > 0 for _ in range(600)]
    assert within(float(np.mean(beaten)), LEVEL, 600)
    assert np.mean([compare_f1(counts(rng, 80, 0.8), counts(rng, 80, 0.4))[1] > 0 for _ in range(50)]) > 0.95


def judged(rng: np.random.Generator, shared: Floats, kind: str) -> tuple[float, float]:
    """The e-value that the rule gives a claim, and that of its edits alone. real; broad: its edits move the unit, which
    fires at half of its places; null: its edits do not.

    shared: (n_documents,) in [0, 1]: documents in which one claim is won by chance, others tend to be won too.
    """
    rate = {"real": 0.85, "broad": 0.9, "null": 0.5}[kind]
    draws = np.where(rng.random(len(shared)) < 0.5, shared, rng.random(len(shared)))
    found = counts(rng, len(shared), {"real": 0.85, "broad": 0.5, "null": 0.85}[kind])
    weights = document_weights(len(shared), 0)
    _, precision, coverage = (values.mean() for values in found.scores(np.ones((1, len(shared)))))
    case = Case(
        complexity=3, n_claims=1, places=int(found.held.sum()), precision=float(precision), coverage=float(coverage),
        precision_low=lower_bound(found.scores(weights)[1]), coverage_low=lower_bound(found.scores(weights)[2]),
        f1=0.8, base_rate=0.02, ap=0.8, ap_null=0.05, r_low=0.5, dense=False, graded=False,
        bets=tuple(np.where(draws < rate, 1.0, -1.0).tolist()),
        rivals=(Rival(claim="other", complexity=1, f1=0.3, difference=0.5, difference_low=0.4, difference_high=0.6, agreement=0.2),),
    )  # fmt: skip
    return decide_reads(case).e, e_value(case.bets)


def test_few_of_the_claims_that_survive_are_false() -> None:
    """Nulls, real claims, and claims that are true and broad, all on the same documents: the share of false ones."""
    rng = np.random.default_rng(4)
    kinds = np.array(["real"] * 6 + ["broad"] * 8 + ["null"] * 46)
    rates, unasked, found = [], [], []
    for _ in range(80):
        shared = rng.random(60)
        values, won = (np.array(one) for one in zip(*(judged(rng, shared, kind) for kind in kinds), strict=True))
        kept, by_edits = e_bh(values), e_bh(won)
        rates.append((kinds[kept] != "real").sum() / max(1, kept.sum()))
        unasked.append((kinds[by_edits] != "real").sum() / max(1, by_edits.sum()))
        found.append((kinds[kept] == "real").sum() / 6)
    assert np.mean(rates) <= LEVEL
    assert np.mean(found) > 0.8
    assert np.mean(unasked) > 0.3  # without the conditions on precision and coverage, which broad claims fail


def test_false_claims_among_survivors_stay_few_however_dependent_the_claims_are() -> None:
    """e-BH on mostly nulls; half of the nulls are one and the same. A test at 5 % each is no control."""
    rng = np.random.default_rng(5)
    controlled, bare = [], []
    for _ in range(300):
        scores = np.where(rng.random((100, 80)) < 0.5, 1.0, -1.0)
        scores[:45] = scores[0]
        scores[90:] = np.where(rng.random((10, 80)) < 0.75, 1.0, -1.0)
        values = np.array([e_value(row) for row in scores])
        z = scores.sum(axis=1) / np.sqrt(80)
        for rule, kept in ((controlled, e_bh(values)), (bare, z > 1.645)):
            rule.append(kept[:90].sum() / max(1, kept.sum()))
    assert within(float(np.mean(controlled)), LEVEL, 300)
    assert not within(float(np.mean(bare)), LEVEL, 300)
