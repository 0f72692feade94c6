"""Which claim is tested next."""

from typing import Any

import pytest

from neuronaut.agent.prospects import Prospect, shorter
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json


def row(text: str = "token(' a')", **changed: Any) -> dict[str, Any]:
    predicate = parse_text(text)
    return {
        "predicate": canonical_json(predicate), "complexity": 10, "f1": 0.8, "precision": 0.9, "coverage": 0.7,
        "precision_low": 0.75, "coverage_low": 0.65, "idle": 0.0, **changed,
    }  # fmt: skip


def test_a_prospect_is_f1_less_what_items_and_idle_conditions_cost() -> None:
    plain = Prospect.of(row())
    assert plain.worth == pytest.approx(0.8 - 0.02)
    assert plain.margin == pytest.approx(0.75 / 0.6)
    assert plain.promise == plain.worth
    assert Prospect.of(row(idle=0.5)).worth == pytest.approx(plain.worth - 0.15)
    modes = "modes(mode(token(' a'), 1.0), mode(token(' b'), 0.5))"
    assert Prospect.of(row(modes)).worth == pytest.approx(plain.worth + 0.1)


def test_a_claim_that_will_hardly_be_supported_promises_less() -> None:
    sure, unsure = Prospect.of(row(f1=0.6)), Prospect.of(row(f1=0.7, coverage_low=0.3))
    assert unsure.worth > sure.worth
    assert unsure.margin == pytest.approx(0.6)
    assert unsure.promise == pytest.approx(unsure.worth - 0.5 * 0.4)
    assert unsure.promise < sure.promise


def test_after_a_long_claim_only_those_of_a_smaller_size_that_may_hold_go_on() -> None:
    prospects = {
        "long": Prospect(0.8, 1.3, 60),
        "nearly as long": Prospect(0.8, 1.3, 40),
        "twenty": Prospect(0.7, 1.1, 20),
        "four": Prospect(0.6, 1.2, 4),
        "too little": Prospect(0.6, 0.9, 5),
    }
    waiting = ["nearly as long", "twenty", "four", "too little"]
    assert shorter(prospects, ["long"], waiting) == ["four", "twenty"]
    assert shorter(prospects, ["long", "twenty"], waiting) == ["four"]
    assert shorter(prospects, ["four"], waiting) == []
    assert len(waiting) == 4
