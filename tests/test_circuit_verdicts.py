"""The verdict on a circuit follows from its numbers, one condition after the other."""

from typing import Any

import pytest

from neuronaut.memory.judge import CircuitCase, case_from_json, decide

WON = (1.0,) * 30


def case(**changes: Any) -> CircuitCase:
    """A circuit for which everything holds, but for the changes."""
    holds: dict[str, Any] = {
        "n_claims": 1, "members": 5, "nodes": 50, "accuracy": 0.97, "gap_low": 3.0, "sufficiency": 0.93,
        "sufficiency_low": 0.85, "percentile": 100.0, "necessity": 0.05, "necessity_high": 0.1,
        "minimality": {"L0H0": 0.001, "mlp3": 0.02}, "harm": 0.01, "harm_high": 0.02, "bets": WON,
    }  # fmt: skip
    return CircuitCase(**{**holds, **changes})


def test_a_circuit_for_which_all_holds_is_supported() -> None:
    decision = decide(case())
    assert (decision.status, decision.reason) == ("SUPPORTED", "all conditions hold")
    assert decision.e > 1000


def test_a_circuit_that_other_text_needs_too_is_supported_with_a_mark() -> None:
    decision = decide(case(harm=1.28, harm_high=1.5))
    assert decision.status == "SUPPORTED"
    assert decision.reason == "other text needs it too (loss +1.28 nats a token without it)"
    assert decision.e > 1000


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"accuracy": 0.7}, "UNRESOLVED", "model itself fails"),
        ({"gap_low": -0.1}, "UNRESOLVED", "model itself fails"),
        ({"bets": (-1.0,) * 30}, "REFUTED", "random circuits"),
        ({"bets": (1.0,) * 3}, "UNRESOLVED", "too few groups"),
        ({"bets": (1.0,) * 10}, "UNRESOLVED", "below 1000"),
        ({"sufficiency_low": 0.79}, "PARTIAL", "keeps 0.93 of the behaviour"),
        ({"percentile": 90.0}, "PARTIAL", "random circuits of its size keep as much"),
        ({"necessity_high": 0.31}, "PARTIAL", "without it 0.05"),
        ({"minimality": {"L0H0": 0.001, "mlp3": 0.06, "mlp1": 1.0}}, "PARTIAL", "no worse without mlp1, mlp3"),
        ({"harm_high": 0.06, "percentile": 90.0}, "PARTIAL", "; other text needs it too (loss +0.01 nats"),
        ({"members": 26}, "PARTIAL", "not localised: 26 of 50"),
        ({"n_claims": 10**9}, "UNRESOLVED", "is below 20000000000"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], status: str, says: str) -> None:
    decision = decide(case(**changes))
    assert decision.status == status
    assert says in decision.reason
    assert decision.e == 0.0


def test_a_stored_case_gives_the_same_verdict() -> None:
    stored = case(harm_high=0.3).model_dump(mode="json")
    assert decide(case_from_json(stored)) == decide(case(harm_high=0.3))
