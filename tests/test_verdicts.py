"""The verdict rule, condition by condition: each one alone takes SUPPORTED away, and the reason says which."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neuronaut.memory.judge import ModeCase, ReadsCase, Rival, WritesCase, case_from_json, decide, e_bar
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.queries import e_values, n_claims
from neuronaut.tools.stats import e_bh, e_value

made = runpy.run_path(str(Path(__file__).parent / "data" / "make_notebook.py"))

WON = (1.0,) * 20
SOME = (1.0,) * 8  # e of about 67: an effect, not yet a finding


def rival(**other: Any) -> Rival:
    beaten = {"claim": "token(' a')", "complexity": 1, "f1": 0.5, "difference": 0.3, "difference_low": 0.2,
              "difference_high": 0.4, "agreement": 0.5}  # fmt: skip
    return Rival(**(beaten | other))


def mode(**other: Any) -> ModeCase:
    good = {"claim": "digit", "precision": 0.8, "added_coverage": 0.3, "added_low": 0.2, "bets": WON}
    return ModeCase(**(good | other))


def reads(**other: Any) -> ReadsCase:
    good = {
        "complexity": 4, "n_claims": 1, "places": 200, "precision": 0.9, "precision_low": 0.85, "coverage": 0.8, "coverage_low": 0.7,
        "f1": 0.85, "base_rate": 0.02, "ap": 0.9, "ap_null": 0.05, "r_low": 0.6, "dense": False, "graded": False, "bets": WON,
        "leaf_e": {"digit": 1e4, "at(1, digit)": 30.0}, "rivals": (rival(),),
    }  # fmt: skip
    return ReadsCase(**(good | other))


def writes(**other: Any) -> WritesCase:
    good = {
        "n_claims": 1,
        "delta": 0.3,
        "delta_low": 0.2,
        "delta_interval_90": (0.2, 0.4),
        "percentile": 97.5,
        "bets": WON,
    }
    return WritesCase(**(good | other))


def test_a_claim_that_meets_every_condition_is_supported_with_its_e_value() -> None:
    decision = decide(reads())
    assert (decision.status, decision.reason) == ("SUPPORTED", "all conditions hold")
    assert decision.e > 1000


@pytest.mark.parametrize(
    ("changed", "status", "says"),
    [
        ({"places": 0}, "UNRESOLVED", "true nowhere"),
        ({"dense": True}, "UNRESOLVED", "only a graded claim"),
        ({"bets": (-1.0,) * 20}, "REFUTED", "do not move the unit"),
        ({"bets": (0.0,) * 40}, "REFUTED", "do not move the unit"),
        ({"precision": 0.01, "precision_low": 0.0}, "REFUTED", "less than anywhere"),
        ({"bets": ()}, "UNRESOLVED", "edits told too little"),
        ({"bets": (1.0,) * 5, "coverage_low": 0.1}, "UNRESOLVED", "covers"),
        ({"bets": SOME}, "UNRESOLVED", "is below 1000"),
        ({"n_claims": 40_000}, "UNRESOLVED", "is below 800000"),
        ({"precision_low": 0.59}, "PARTIAL", "fires at only 0.90"),
        ({"coverage_low": 0.49}, "PARTIAL", "true where it speaks, covers 0.80"),
        ({"ap": 0.05}, "PARTIAL", "null units"),
        ({"bets": SOME, "coverage_low": 0.1}, "PARTIAL", "covers"),
        ({"leaf_e": {"digit": 1e4, "at(1, digit)": 19.0}}, "PARTIAL", "no better than without 'at(1, digit)'"),
        ({"complexity": 6, "rarer_half_precision": 0.5}, "PARTIAL", "rarer half"),
        ({"rivals": (rival(difference_low=-0.01),)}, "PARTIAL", "no better than \"token(' a')\""),
        ({"rivals": (rival(difference_low=-0.01, lacked_leaf_e=19.0),)}, "PARTIAL", "no better than"),
        ({"rivals": (rival(difference_low=-0.01, told_apart_e=19.0),)}, "PARTIAL", "no better than"),
        (
            {"rivals": (rival(difference_low=-0.2, difference_high=-0.01, told_apart_e=1e6),)},
            "PARTIAL",
            "no better than",
        ),
        ({"rivals": (), "f1": 0.03}, "PARTIAL", "nothing specific"),
        ({"rivals": (rival(complexity=4, difference=-0.2, difference_high=-0.1),)}, "PARTIAL", "worse than"),
        ({"modes": (mode(), mode(bets=SOME))}, "PARTIAL", "mode 'digit': edits told too little"),
        ({"modes": (mode(precision=0.5),)}, "PARTIAL", "fires at only 0.50"),
        ({"modes": (mode(added_low=-0.01),)}, "PARTIAL", "adds only 0.30"),
        ({"modes": (mode(added_coverage=0.04),)}, "PARTIAL", "adds only 0.04"),
        ({"graded": True, "r_low": 0.4}, "PARTIAL", "correlation"),
        ({"graded": True, "precision_low": 0.3}, "PARTIAL", "fires at only"),
        ({"graded": True, "dense": True, "r_low": 0.4}, "PARTIAL", "correlation"),
    ],
)  # fmt: skip
def test_each_condition_alone_takes_support_away(changed: dict[str, Any], status: str, says: str) -> None:
    decision = decide(reads(**changed))
    assert decision.status == status
    assert says in decision.reason
    assert decision.e == 0.0


@pytest.mark.parametrize(
    "changed",
    [
        {"n_claims": 50},
        {"leaf_e": {"digit": 1.0}},  # the only leaf is the claim: its bets are the claim's
        {"complexity": 5, "rarer_half_precision": 0.1},
        {"complexity": 6, "rarer_half_precision": 0.6},
        {"complexity": 6},
        {"rivals": (rival(difference_low=-0.01, lacked_leaf_e=20.0),)},
        {"rivals": (rival(difference_low=-0.01, difference_high=0.0, told_apart_e=20.0),)},
        {"rivals": (rival(difference_low=-0.5, agreement=0.99),)},
        {"rivals": (rival(complexity=4, difference=0.0, difference_low=-0.1, difference_high=0.1),)},
        {"rivals": ()},
        {"modes": (mode(), mode(added_coverage=0.05))},
        {"graded": True, "dense": True, "precision_low": 0.0, "coverage_low": 0.0, "precision": 0.1, "base_rate": 0.4, "f1": 0.2},
    ],
)  # fmt: skip
def test_what_is_not_asked_for_does_not_take_support_away(changed: dict[str, Any]) -> None:
    assert decide(reads(**changed)).status == "SUPPORTED"


def test_a_richer_rival_that_is_much_better_is_named() -> None:
    richer = rival(claim="more", complexity=9, difference=-0.11, difference_low=-0.2, difference_high=-0.05)
    decision = decide(reads(rivals=(rival(), richer)))
    assert (decision.status, decision.reason) == ("SUPPORTED", "there is more to it: 'more' does better")
    assert (
        decide(reads(rivals=(rival(), richer.model_copy(update={"difference": -0.1})))).reason == "all conditions hold"
    )


def test_all_that_is_missing_is_said() -> None:
    reason = decide(reads(precision_low=0.1, coverage_low=0.1, rivals=(rival(difference_low=0.0),))).reason
    assert reason.count("; ") == 2


def test_the_bar_rises_with_the_claims_of_a_unit() -> None:
    assert [e_bar(n) for n in (1, 50, 51, 1000)] == [1000.0, 1000.0, 1020.0, 20000.0]


@pytest.mark.parametrize(
    ("changed", "status", "says"),
    [
        ({}, "SUPPORTED", "all conditions hold"),
        ({"delta_interval_90": (-0.009, 0.009)}, "REFUTED", "writes nothing measurable"),
        ({"bets": (-1.0,) * 20}, "REFUTED", "no more than others of equal frequency"),
        ({"delta": -0.3, "delta_interval_90": (-0.4, -0.2), "bets": ()}, "REFUTED", "the other way"),
        ({"bets": (1.0,) * 3}, "UNRESOLVED", "too few documents agree"),
        ({"percentile": 94.9}, "PARTIAL", "other neurons of the layer do as much"),
        ({"delta_low": 0.049}, "PARTIAL", "true but tiny"),
        ({"bets": SOME}, "UNRESOLVED", "is below 1000"),
        ({"n_claims": 40_000}, "UNRESOLVED", "is below 800000"),
    ],
)
def test_a_writes_claim_needs_each_condition(changed: dict[str, Any], status: str, says: str) -> None:
    decision = decide(writes(**changed))
    assert decision.status == status
    assert says in decision.reason
    assert (decision.e > 0) == (status == "SUPPORTED")


@pytest.mark.parametrize("case", [reads(modes=(mode(),)), writes()])
def test_a_stored_case_gives_the_verdict_that_it_gave(case: ReadsCase | WritesCase) -> None:
    again = case_from_json(case.model_dump(mode="json"))
    assert again == case
    assert decide(again) == decide(case)


@pytest.mark.parametrize("wrong", [{"precision": float("nan")}, {"n_claims": 0}, {"status": "SUPPORTED"}])
def test_a_case_that_no_test_can_give_is_not_judged(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        reads(**wrong)


def test_every_registered_prediction_on_a_unit_counts() -> None:
    def row(identifier: str, address: str, predictions: int, predicate: str = '{"kind":"digit"}') -> dict[str, Any]:
        return {"id": identifier, "address": address, "predicate": predicate, "predictions": [{}] * predictions}

    two = '{"kind":"modes","of":[{},{}]}'
    rows = [
        row("a", "8.481", 0),
        row("b", "8.481", 1),
        row("c", "8.481-", 1),
        row("rival", "8.481", 0),
        row("d", "8.48", 1),
    ]
    assert n_claims(rows, "a") == 3
    assert n_claims([*rows[1:], row("a", "8.481", 1)], "a") == 3
    assert n_claims([*rows, row("e", "8.481", 1, two)], "a") == 5
    assert n_claims([*rows, row("e", "8.481", 0, two)], "e") == 4


def test_false_claims_are_controlled_over_the_run_and_over_the_notebook(tmp_path: Path) -> None:
    """A claim that failed, and one that was registered and never judged, count with an e-value of 0."""
    with Notebook(tmp_path / "n.db") as notebook:
        runs = [made["start"](notebook) for _ in range(2)]
        for run, names in zip(runs, ("a", "bcd"), strict=True):
            for name in names:
                made["judged"](notebook, run, made["claim"](notebook, run, name), made["case_of"](0.9, WON))
        made["judged"](
            notebook, runs[0], made["claim"](notebook, runs[0], "failed"), made["case_of"](0.1, (-1.0,) * 20)
        )
        unjudged = made["claim"](notebook, runs[0], "unjudged")
        notebook.register(
            unjudged,
            {"metric": "f1", "comparator": ">", "threshold": 0.0, "baseline": "", "split": "confirm/1", "payload": {}},
        )
        assert sorted(e_values(notebook, runs[0])) == [0.0, 0.0, e_value(WON)]
        assert e_values(notebook, runs[1]) == [e_value(WON)] * 3
        assert sorted(e_values(notebook)) == [0.0, 0.0, *[e_value(WON)] * 4]
        assert e_bh(e_values(notebook)).sum() == 4
