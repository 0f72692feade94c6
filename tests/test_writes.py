"""Planted outputs: the forward pass writes the planted vector, and the loop says what is written and what is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.evals.loop import ask_each
from neuronaut.evals.outputs import APART, LEAST, Output, draw_output, near_tokens, token_direction
from neuronaut.evals.overlay import FromPredicate
from neuronaut.evals.suite import Row
from neuronaut.evals.writes import KINDS, SUITE, Planted, judged, planted_case, planted_context
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.base import Edit, Site
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.trials.writes import moved_most, null_vectors, seen_tokens, unigram
from neuronaut.tools.units import Unit

RULE = parse_text("token(' the', ' said')")
WRITER, SILENT, OWN = Unit("neuron", 8, 7), Unit("neuron", 8, 100), Unit("neuron", 8, 3)


@pytest.fixture(scope="module")
def context() -> ToolContext:
    corpus = Corpus("a third of pocket", "1" * 64, pocket_corpus().documents[::3])
    return ToolContext(load_target("pocket"), corpus)


@pytest.fixture(scope="module")
def overlay(context: ToolContext) -> Overlay:
    rng = np.random.default_rng(0)
    vector = torch.from_numpy(rng.standard_normal(context.target.spec.d_model)).float()
    vectors = {WRITER: vector, SILENT: torch.zeros(context.target.spec.d_model)}
    return Overlay(context.target, {u: FromPredicate(RULE, s) for s, u in enumerate((WRITER, SILENT, OWN))}, vectors)


@pytest.mark.parametrize("edit", ["none", "set", "add", "scale", "whole site", "resumed"])
def test_what_a_planted_neuron_writes_is_its_activation_times_its_vector(
    edit: str, overlay: Overlay, context: ToolContext
) -> None:
    """Against the plain model: the MLP's output changes by what the planted neurons write less what the real ones wrote."""
    target, site = context.target, Site("neurons", 8)
    ids = torch.from_numpy(np.maximum(context.tokens("audit").ids[:6, :40], 0)).long()
    at = torch.zeros(ids.shape, dtype=torch.bool)
    at[:, 20] = True
    factors = torch.linspace(0.5, 2.0, target.spec.d_mlp)
    edits = {
        "set": [Edit(site, "set", 1.7, index=WRITER.index, positions=at)],
        "add": [Edit(site, "add", -0.3, index=WRITER.index), Edit(site, "scale", 2.0, index=SILENT.index)],
        "scale": [Edit(site, "scale", 0.0, index=OWN.index, positions=at)],
        "whole site": [Edit(site, "scale", factors)],
    }.get(edit, [])
    sites = [site, Site("mlp_out", 8)]
    plain = target.run(ids, read=[*sites, Site("resid_pre", 8)], edits=[e for e in edits if e.index is None])
    start = (8, plain.read[Site("resid_pre", 8)]) if edit == "resumed" else None
    found = overlay.run(ids, read=sites, edits=edits, start=start)
    units = [WRITER, SILENT, OWN]
    wrote = sum(
        found.read[site][:, :, u.index, None] * overlay.write_vector(u)
        - plain.read[site][:, :, u.index, None] * target.write_vector(u)
        for u in units
    )
    assert isinstance(wrote, torch.Tensor)
    assert float(wrote.abs().max()) > 1
    change = found.read[sites[1]] - plain.read[sites[1]]
    assert torch.allclose(change, wrote, atol=1e-4, rtol=1e-4)


def test_the_planted_vector_is_the_neurons_own_to_every_tool(overlay: Overlay, context: ToolContext) -> None:
    vectors, plain = overlay.write_vectors(8), context.target.write_vectors(8)
    assert torch.equal(vectors[WRITER.index], overlay.write_vector(WRITER))
    assert torch.equal(overlay.write_vector(WRITER.with_sign(-1)), overlay.write_vector(WRITER))
    assert float(vectors[SILENT.index].abs().max()) == 0
    assert torch.equal(vectors[OWN.index], plain[OWN.index])
    changed = torch.nonzero((vectors != plain).any(dim=1))[:, 0].tolist()
    assert changed == sorted([WRITER.index, SILENT.index])
    nulls = null_vectors(overlay, WRITER, 0)
    assert torch.allclose(nulls.norm(dim=1), overlay.write_vector(WRITER).norm().expand(len(nulls)), rtol=1e-4)
    assert float(null_vectors(overlay, SILENT, 0).abs().max()) == 0


def test_a_vector_is_part_of_the_fingerprint_and_belongs_to_a_planted_neuron(context: ToolContext) -> None:
    plants, ones = {WRITER: FromPredicate(RULE, 0)}, torch.ones(context.target.spec.d_model)
    made = [Overlay(context.target, plants, vectors) for vectors in (None, {WRITER: ones}, {WRITER: 2 * ones})]
    assert len({one.fingerprint() for one in made}) == 3
    with pytest.raises(ValueError, match=SILENT.address):
        Overlay(context.target, plants, {SILENT: ones})


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ({3: 0.6, 9: 0.45, 5: 0.2}, ("promotes", [3, 9])),
        ({3: -0.6, 9: -0.45, 5: 0.55, 6: -0.2}, ("suppresses", [3, 9])),
        ({3: 0.5, **dict.fromkeys(range(10, 16), -0.2)}, ("promotes", [3])),
        ({i: 1.0 - i / 100 for i in range(10)}, ("promotes", [0, 1, 2, 3, 4])),
        ({49: 9.0, 3: 0.5}, ("promotes", [3])),
    ],
)
def test_a_claim_names_the_tokens_before_the_steepest_fall(
    effects: dict[int, float], expected: tuple[str, list[int]]
) -> None:
    """The last token is in no text."""
    effect = torch.zeros(50)
    for token, nats in effects.items():
        effect[token] = nats
    direction, chosen = moved_most(effect, np.arange(50) < 49)
    assert (direction, chosen.tolist()) == expected


def test_the_direction_raises_its_tokens_above_all_others(context: ToolContext) -> None:
    """By the logits of the model itself, without the scale of the norm."""
    target = context.target
    pool = torch.nonzero(torch.from_numpy(seen_tokens(unigram(context))))[:, 0]
    ids = near_tokens(target, int(pool[40]), pool)[:2]
    vector = token_direction(target, ids, pool)
    assert ids[0] == int(pool[40])
    assert float(vector.norm()) == pytest.approx(1.0, abs=1e-5)
    logits = ((vector - vector.mean()) * target.final_norm_gain()) @ target.unembed[:, pool]
    best = pool[torch.topk(logits, 2).indices].tolist()
    assert set(best) & set(ids)
    assert float(logits[torch.isin(pool, torch.tensor(ids))].min()) > float(logits.mean() + 2 * logits.std())


@pytest.mark.parametrize("direction", ["promotes", "suppresses"])
def test_a_drawn_output_is_what_the_tool_finds_on_other_text(direction: Any, context: ToolContext) -> None:
    function = FromPredicate(RULE, 1)
    output = next(one for one in draw_output(context, WRITER, function, direction, 4) if isinstance(one, Output))
    over = ToolContext(Overlay(context.target, {WRITER: function}, {WRITER: output.vector}), context.corpus)
    tool = find_tool("output_effects")
    told = tool.run(over, tool.parse({"unit": WRITER.address})).payload
    assert told["claim"]["direction"] == direction
    assert set(told["claim"]["tokens"]) == set(output.tokens)
    assert told["claim"]["nats"] == pytest.approx(output.nats, rel=0.35)
    sizes = {row["token"]: abs(row["nats"]) for row in told[direction]}
    others = [size for token, size in sizes.items() if token not in output.tokens]
    assert min(sizes[token] for token in output.tokens) > max([0.8 * LEAST, 0.8 * APART * max(others, default=0.0)])


def test_the_loop_tells_a_writer_from_its_silent_twin(context: ToolContext, tmp_path: Path) -> None:
    rule = canonical_json(RULE)
    writer = planted_case(context, "promote", [Unit("neuron", 8, 7)], rule, 3)
    silent = planted_case(context, "read-only", [Unit("neuron", 8, 8)], rule, 2)
    over = planted_context(context, [writer, silent])
    asked = list(ask_each(over, list(over.units), 0, tmp_path / "n.db", sides=("writes",)))
    told = [judged(row, truth, context) for row, truth in zip(asked, (writer, silent), strict=True)]
    assert [row["status"] for row in told] == ["SUPPORTED", "REFUTED"]
    assert [row["right_writes"] for row in told] == [True, True]
    assert asked[1]["writes"][0]["reason"] == "writes nothing measurable"
    assert (told[0]["precision"], told[0]["recall"], told[0]["right_direction"]) == (1.0, 1.0, True)


def claim(predicate: str, status: str = "SUPPORTED") -> dict[str, Any]:
    return {"status": status, "predicate": canonical_json(parse_text(predicate))}


def test_right_is_right_on_each_side(context: ToolContext) -> None:
    rule = canonical_json(RULE)
    both = Planted("8.7", 0, rule, "promotes", (" a", " to"))
    neither = Planted("8.7", 0, None, vector=(0.0,))

    def told(reads: list[Any], writes: list[Any], truth: Planted) -> tuple[bool, bool]:
        row = judged({"claims": reads, "writes": writes}, truth, context)
        return row["right_reads"], row["right_writes"]

    right, story = claim("token(' the', ' said')"), claim("promotes(' a', ' to')")
    assert told([right], [story], both) == (True, True)
    assert told([claim("starts_word")], [claim("suppresses(' a', ' to')")], both) == (False, False)
    assert told([], [], both) == (False, False)
    assert told([], [claim("promotes(' a', ' was', ' he')")], both) == (False, False)
    assert told([], [], neither) == (True, True)
    assert told([right], [story], neither) == (False, False)
    assert told([claim("digit", "PARTIAL")], [claim("promotes(' a')", "REFUTED")], neither) == (True, True)


def test_scores_are_one_where_all_is_right_and_nothing_where_all_is_wrong() -> None:
    def rows(right: bool) -> list[Row]:
        return [
            {"family": kind, "outcome": "ok", "right_reads": right, "right_writes": right,
             "reads_supported": right == (kind in ("promote", "suppress", "read-only")),
             "writes_supported": right == (kind in ("promote", "suppress", "write-only")),
             "right_direction": None if kind in ("read-only", "inert") else right,
             "precision": None if kind in ("read-only", "inert") else float(right),
             "recall": None if kind in ("read-only", "inert") else float(right)}
            for kind in KINDS
        ]  # fmt: skip

    for right in (True, False):
        scores = {score.name: score.value for score in SUITE.scores(rows(right))}
        false = [value for name, value in scores.items() if name.startswith("false")]
        assert false == [1.0 - right] * 2
        assert {value for name, value in scores.items() if not name.startswith("false")} == {float(right)}
    failed = [{"family": "promote", "outcome": "failed", "error": "it broke"}]
    assert all(score.value is None for score in SUITE.scores(failed))


def test_kinds_come_in_equal_parts_and_batches_stay_small() -> None:
    cases = [case for batch in SUITE.batches(50, 1) for case in batch.cases]
    assert len({case.key for case in cases}) == 50
    assert [sum(case.family == kind for case in cases) for kind in KINDS] == [10] * 5
    assert SUITE.batches(50, 1) == SUITE.batches(50, 1)
    assert max(len(batch.cases) for batch in SUITE.batches(50, 1)) <= 20
