"""The verdict on a circuit follows from its numbers, one condition after the other."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuronaut.evals.compiled import opened
from neuronaut.memory.judge import CircuitCase, case_from_json, decide
from neuronaut.tools.circuits.measures import beside_random, minimality, random_circuits, share_of
from neuronaut.tools.circuits.nodes import NodeRuns, mask_of
from neuronaut.tools.targets.base import TargetModel

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


circuits = runpy.run_path(str(Path(__file__).with_name("test_circuits.py")))


def measured(target: TargetModel, prompts: Any, mask: Any) -> CircuitCase:
    """The case of some nodes, from the measures alone; other text is the prompts themselves."""
    runs = NodeRuns(target, prompts)
    alone, without = runs.scores([mask, ~mask])
    kept, left = share_of(runs, alone, 0), share_of(runs, without, 0)
    beside = beside_random(runs, alone, random_circuits(target.spec, mask, 200, 0))
    return CircuitCase(
        n_claims=1, members=int(mask.sum()), nodes=len(mask), accuracy=1.0, gap_low=runs.gap, sufficiency=kept.share,
        sufficiency_low=kept.low, percentile=beside.percentile, necessity=left.share, necessity_high=left.high,
        minimality=dict(minimality(runs, mask, alone).p_values), harm=1.0, harm_high=1.0, bets=beside.bets,
    )  # fmt: skip


LOCALISED = ("constructed 2", "induction")


@pytest.mark.parametrize("name", [*LOCALISED, "constructed 1", "well_formed"])
def test_a_planted_circuit_is_supported_and_its_spoilt_versions_are_not(name: str) -> None:
    compiled = circuits["MODELS"][name]()
    with opened(compiled) as target:
        prompts, members = circuits["asked"](compiled, 48), circuits["planted"](compiled)
        truth = mask_of(target.spec, members)
        found = decide(measured(target, prompts, truth))
        assert found.status == ("SUPPORTED" if name in LOCALISED else "PARTIAL")
        assert found.reason.startswith("other text" if name in LOCALISED else "not localised")
        for node in np.flatnonzero(truth):
            less = truth.copy()
            less[node] = False
            assert not less.any() or decide(measured(target, prompts, less)).status != "SUPPORTED"
        for node in np.flatnonzero(~truth):
            more = truth.copy()
            more[node] = True
            assert decide(measured(target, prompts, more)).status == "PARTIAL"
