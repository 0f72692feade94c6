"""Every head in one table: kinds put in by hand are described and nothing else, scores of weights at their ends, the question."""

import json
import random
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.agent.questions import parse_question
from neuronaut.evals.compiled import opened
from neuronaut.evals.compiler.program import MAX_LENGTH
from neuronaut.evals.head_models.constructed import construct
from neuronaut.tools.corpus import corpus_from_texts, load_corpus
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.look.head_dictionary import _writes
from neuronaut.tools.look.head_facts import Written, eigen_scores
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.load import load_target

Command = Callable[..., Any]
made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
SEEDS = range(20)
KIND = {
    "previous": "previous token", "induction": "induction", "duplicate": "duplicate token", "successor": "current token",
    "positional": "first token",
}  # fmt: skip


def describe(context: ToolContext, **args: Any) -> ToolResult:
    tool = find_tool("describe_heads")
    return tool.run(context, tool.parse(json.dumps(args)))


@pytest.mark.parametrize("seed", SEEDS)
def test_heads_put_in_by_hand_are_described_as_what_they_are_and_idle_ones_are_not(seed: int) -> None:
    compiled, kinds = construct(seed)
    rng, letters = random.Random(seed), [str(token) for token in compiled.program.tokens.domain]
    texts = [" ".join(rng.choices(letters, k=MAX_LENGTH)) for _ in range(150)]
    with opened(compiled) as target:
        rows = describe(ToolContext(target, corpus_from_texts("letters", texts)), seed=seed).payload["heads"]
    said = {tuple(map(int, row["head"][1:].split("H"))): row["kind"] if row["description"] else "" for row in rows}
    assert said == {place: KIND[kinds[place]] if place in kinds else "" for place in said}
    assert all(row["why_not"] == "" for row in rows if row["description"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_heads_of_random_weights_get_no_description(family: str, seed: int, tmp_path: Path) -> None:
    folder = made["make_model"](family, tmp_path / "model")
    context = ToolContext(load_target(folder), load_corpus(made["make_corpus"](tmp_path / "corpus.jsonl")))
    found = describe(context, n_windows=32, seed=seed)
    assert [row["head"] for row in found.payload["heads"] if row["description"]] == []
    assert found.measurements[0].value == 0.0


def test_eigenvalues_tell_what_copies_from_what_suppresses_and_what_does_neither() -> None:
    n, rng = 12, torch.Generator().manual_seed(0)
    same = torch.eye(n).double()
    turned = torch.linalg.qr(torch.randn(n, n, generator=rng).double())[0]
    maps = torch.stack([3 * same, -2 * same, same.roll(1, 1)])
    scores = eigen_scores(maps @ turned, turned.T.expand(3, n, n))
    np.testing.assert_allclose(scores[:2], [1.0, -1.0], atol=1e-6)
    assert abs(float(scores[2])) < 0.15
    narrow, out = torch.randn(2, n, 3, generator=rng).double(), torch.randn(2, 3, n, generator=rng).double()
    whole = torch.linalg.eigvals(narrow @ (out - out.mean(-1, keepdim=True)))
    np.testing.assert_allclose(eigen_scores(narrow, out), whole.real.sum(-1) / whole.abs().sum(-1), atol=1e-6)


@pytest.mark.parametrize(
    ("copying", "eigen", "successor", "says"),
    [
        (0.99, 0.8, 0.0, "copies it"), (0.01, -0.7, 0.0, "suppresses it"), (0.6, 0.5, 0.0, ""), (0.99, -0.5, 0.0, ""),
        (0.55, 0.0, 0.9, "writes what comes next"), (0.55, 0.0, 0.3, ""),
    ],
)  # fmt: skip
def test_what_a_head_writes_is_said_only_where_rank_and_eigenvalues_agree(
    copying: float, eigen: float, successor: float, says: str
) -> None:
    grid = np.full((1, 1), 1.0)
    written = Written(
        copying * grid, 0.5 * grid, 0.01 * grid, eigen * grid, 0 * grid, 0.02 * grid, successor * grid, 0.1
    )
    assert _writes(written, (0, 0), None) == says
    assert _writes(written, (0, 0), "copies") == "copies it"


def test_text_without_queries_is_refused(tmp_path: Path) -> None:
    folder = made["make_model"]("gpt2", tmp_path / "model")
    short = [f"{one}{other}" for one in "qxzjkvw0123456789" for other in "QXZJKVW0123456789"]
    with pytest.raises(ToolRefused, match="windows of 3 tokens"):
        describe(ToolContext(load_target(folder), corpus_from_texts("short", short)))


@pytest.mark.parametrize(
    "text",
    [
        "describe every head",
        "Describe all heads.",
        "what does each attention head do",
        "what do the heads do",
        "head dictionary",
    ],
)
def test_all_heads_are_asked_for_in_several_wordings(text: str) -> None:
    assert parse_question(text).intent == "every"


def test_other_questions_about_heads_keep_their_meaning() -> None:
    assert parse_question("what does head 5.1 do").intent == "explain"
    assert parse_question("which heads are induction heads").intent == "kind"
    assert parse_question("what does the head 3 of layer 5 do").intent == "explain"
    with pytest.raises(UserError, match="names no kind"):
        parse_question("which heads are fast")


def test_the_table_of_heads_is_an_answer_of_the_notebook(
    neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    book = tmp_path / "n.db"
    said = neuronaut("ask", "describe every head", *tiny, "--notebook", book, "--json")
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    (found,) = answer["measured"]
    assert found["tool"] == "describe_heads"
    assert found["title"].startswith("0 of ")
    assert answer["claims"] == []
    assert {figure["name"] for figure in answer["figures"]} == {"heads_share", "heads_copying", "heads_effect"}
    assert neuronaut("rerun", answer["run"], "--notebook", book).out.split()[0] == "identical"
