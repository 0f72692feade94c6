"""Contexts of a neuron beside a claim: four bands, each token with what was measured and what is claimed."""

import json
from typing import Any

import numpy as np
import pytest

from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

UNIT = "6.457"  # it fires at " dem" just after " auf", and at no other " dem"
TOO_WIDE, RIGHT = "token(' dem')", "all_of(token(' dem'), at(1, token(' auf')))"


@pytest.fixture(scope="module")
def context() -> ToolContext:
    return ToolContext(load_target("pocket"), pocket_corpus())


def found(context: ToolContext, claim: str | None, unit: str = UNIT, **more: Any) -> dict[str, Any]:
    args = {"unit": unit, "claim": claim and canonical_json(parse_text(claim)), **more}
    tool = find_tool("contexts_of_claim")
    return tool.run(context, tool.parse(json.dumps(args))).payload


def test_each_token_has_what_the_claim_says_there(context: ToolContext) -> None:
    for band in found(context, TOO_WIDE)["bands"].values():
        assert band["examples"]
        for one in band["examples"]:
            assert one["predicted"] == [float(piece == " dem") for piece in one["pieces"]]
            assert len(one["activations"]) == len(one["pieces"])


def test_a_near_miss_of_a_claim_that_is_too_wide_is_a_place_where_it_holds_and_the_neuron_is_silent(
    context: ToolContext,
) -> None:
    payload = found(context, TOO_WIDE)
    near = [one for one in payload["bands"]["near_miss"]["examples"] if one["note"].startswith("the claim holds")]
    assert near
    for one in near:
        before, here = one["pieces"][one["centre"] - 1 : one["centre"] + 1]
        assert here == " dem"
        assert before != " auf"
        assert one["activation"] <= payload["threshold"]


def test_a_claim_that_is_right_has_fewer_places_where_it_is_wrong(context: ToolContext) -> None:
    wrong = [
        sum(
            one["note"].startswith("the claim holds")
            for one in found(context, claim, k=20)["bands"]["near_miss"]["examples"]
        )
        for claim in (TOO_WIDE, RIGHT)
    ]
    assert wrong[0] > wrong[1]


def test_a_claim_that_is_too_narrow_misses_places_where_the_neuron_fires(context: ToolContext) -> None:
    payload = found(context, "token(' Stuhl')")
    missed = [one for one in payload["bands"]["near_miss"]["examples"] if one["note"].startswith("it fires")]
    assert missed
    assert all(one["activation"] > payload["threshold"] and one["predicted"][one["centre"]] == 0 for one in missed)


def test_without_a_claim_nothing_is_predicted_and_look_alikes_are_the_near_misses(context: ToolContext) -> None:
    bands = found(context, None)["bands"]
    assert all("predicted" not in one for band in bands.values() for one in band["examples"])
    assert {one["note"] for one in bands["near_miss"]["examples"]} == {
        "a token on which it often fires, and it is silent"
    }


def test_near_misses_are_of_different_documents(context: ToolContext) -> None:
    documents = [one["document"] for one in found(context, TOO_WIDE, k=20)["bands"]["near_miss"]["examples"]]
    assert len(documents) == len(set(documents))


def test_the_histogram_counts_every_scored_token_once(context: ToolContext) -> None:
    payload, tokens = found(context, None), context.sample("explore", 50_000)
    values = context.activations(Unit.parse(UNIT), "explore", n_tokens=50_000)[tokens.scored]
    edges, counts = payload["histogram"]["edges"], payload["histogram"]["counts"]
    assert sum(counts) == tokens.n_scored
    assert counts[0] == int((values < np.linspace(values.min(), values.max(), len(counts) + 1)[1]).sum())
    assert edges[-1] == pytest.approx(float(values.max()), abs=1e-4)


@pytest.mark.parametrize("unit", ["L5H1", "8.481-"])
def test_what_has_no_firing_rule_is_refused(context: ToolContext, unit: str) -> None:
    with pytest.raises(ToolRefused):
        found(context, None, unit)
