"""How a prediction comes about: on models where the deciding part is planted, and from the question to the answer."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.agent.questions import parse_question
from neuronaut.evals.story_models import N_CTX, N_LAYERS, N_LETTERS, PIECES, Planted, plant, texts
from neuronaut.tools.corpus import corpus_from_texts, pocket_corpus
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.look.lens import settled
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.load import POCKET, load_target

Command = Callable[..., Any]
SEEDS = range(20)
PROMPT = "In January, February,"


@dataclass(frozen=True)
class Bench:
    """A planted model with its text."""

    planted: Planted
    context: ToolContext
    text: str

    def run(self, name: str, **args: Any) -> ToolResult:
        tool = find_tool(name)
        return tool.run(self.context, tool.parse(json.dumps(args)))

    @property
    def answer(self) -> str:
        """What the model says after the text."""
        letters = self.text.split()
        asked = letters[-1] if self.planted.decider == "embedding" else letters[-2]
        return PIECES[1 + self.planted.follows[PIECES.index(asked) - 1]]

    @property
    def row(self) -> int:
        """From which the answer leads by the plain lens."""
        return 0 if self.planted.decides is None else self.planted.decides + 1


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Bench]:
    @cache
    def opened(seed: int) -> Bench:
        folder = tmp_path_factory.mktemp("planted")
        planted, some = plant(seed, folder), texts(seed, 400)
        return Bench(
            planted, ToolContext(load_target(folder), corpus_from_texts("letters", some)), texts(seed + 100, 1)[0]
        )

    return opened


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_part_decides_from_its_layer_on(open_bench: Callable[[int], Bench], seed: int) -> None:
    bench = open_bench(seed)
    found, planted = bench.run("prediction_story", text=bench.text, n_texts=12), bench.planted
    payload, measured = found.payload, {one.metric: one for one in found.measurements}
    assert payload["answer"] == bench.answer
    assert payload["decides"] == ("embedding" if planted.decides is None else f"layer {planted.decides}")
    assert measured["on_top_plain"].value == bench.row
    assert payload["parts"][0]["part"] == planted.part
    assert payload["parts"][0]["beyond"]
    assert [row["layer"] for row in payload["layers"] if row["beyond"]] == [payload["decides"]], (
        "no other layer is named"
    )
    if planted.neurons:
        letter = PIECES.index(bench.text.split()[-2]) - 1
        assert payload["neurons"][0]["neuron"] == planted.neurons[letter]
        assert payload["units"] == [planted.neurons[letter]]
    if planted.decides is not None:
        assert payload["parts"][0]["without"] > 1, "the answer is lost without it"
    places = payload["tokens"][2:]
    assert {row["layer"] for row in places} == {payload["decides"]}
    assert {row["on_top"]["plain"] for row in places} == {bench.row}


def test_an_answer_that_the_model_does_not_give_is_decided_nowhere(open_bench: Callable[[int], Bench]) -> None:
    """Of 100 layers and embeddings, 260 parts and 4,480 neurons that only make noise, the bar lets one in a hundred places pass."""
    flagged: dict[str, list[int]] = {"decides": [], "layers": [], "units": []}
    for seed in SEEDS:
        bench = open_bench(seed)
        other, another = [piece for piece in PIECES[1:-1] if piece != bench.answer][:2]
        found = bench.run("prediction_story", text=bench.text, answer=other, rival=another, n_texts=12)
        assert {one.metric: one.value for one in found.measurements}["on_top_plain"] == N_LAYERS + 1
        flagged["decides"] += [seed] * (found.payload["decides"] != "none")
        flagged["layers"] += [seed] * any(row["beyond"] for row in found.payload["layers"])
        flagged["units"] += [seed] * bool(found.payload["units"])
    assert {name: len(seeds) <= 1 for name, seeds in flagged.items()} == dict.fromkeys(flagged, True), flagged


@pytest.mark.parametrize("seed", [1, 4])
def test_the_tuned_lens_knows_the_answer_before_anything_says_it(
    open_bench: Callable[[int], Bench], seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / "cache"))
    bench = open_bench(seed)
    trained = bench.run("tune_lens", n_tokens=1024, steps=400)
    by_row = {row["before"]: row for row in trained.payload["layers"]}
    # Each answer hangs on the letter before, which is drawn anew; the first place of a window alone has none before it.
    unknown = math.log(N_LETTERS) * (N_CTX - 2) / (N_CTX - 1)
    assert by_row[0]["tuned"] > unknown, "nothing is known before, but where the window begins"
    assert by_row[1]["tuned"] < 0.05 * unknown, "the first layer has fetched the letter before"
    assert by_row[1]["tuned"] < 0.3 * by_row[1]["shuffled"], "outputs of other tokens teach nothing of it"
    found = bench.run("prediction_story", text=bench.text, lens="tuned", n_texts=12)
    value = {one.metric: one.value for one in found.measurements}
    assert value["on_top_plain"] == bench.row
    assert value["on_top_tuned"] <= 1, "a guess may be right before"
    assert found.payload["lens"]["sha256"] == trained.payload["sha256"]
    assert found.payload["decides"] == f"layer {bench.planted.decides}"


@pytest.fixture(scope="module")
def pocket() -> Bench:
    return Bench(Planted("embedding", None, "", (), ()), ToolContext(load_target(POCKET), pocket_corpus()), PROMPT)


@pytest.mark.parametrize("text", [PROMPT, "After Mary and Lucy met at the river, Lucy gave a ring to"])
def test_parts_add_up_to_the_margin_at_every_place(pocket: Bench, text: str) -> None:
    found = pocket.run("prediction_story", text=text, n_texts=4)
    payload, target = found.payload, pocket.context.target
    assert payload["margin"] == pytest.approx(payload["model_margin"], abs=2e-3)
    ids = torch.from_numpy(target.tokenize([text]).ids).long()
    logits = target.run(ids, logits=True).logits
    assert logits is not None
    top = logits[0].topk(2).values
    np.testing.assert_allclose(found.arrays["parts"].sum(axis=0), top[:, 0] - top[:, 1], atol=2e-3)
    assert sum(row["adds"] for row in payload["layers"]) == pytest.approx(
        payload["margin"] - found.arrays["parts"][-2:, -1].sum(), abs=2e-3
    )
    assert [figure.name for figure in found.figures] == ["story_plain_lens", "story_parts"]


def test_a_prediction_leads_from_the_row_after_the_last_wrong_one() -> None:
    best = torch.tensor([[1, 5, 0, 5], [5, 5, 5, 5], [1, 5, 0, 5], [5, 5, 5, 4]])
    assert settled(best, torch.tensor([5, 5, 5, 5])).tolist() == [3, 0, 3, 4]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"answer": "no such token"}, "is not one token"),
        ({"answer": "March", "rival": " March"}, "always 0"),
        ({"lens": "tuned"}, "run the tool tune_lens first"),
    ],
)
def test_what_cannot_be_told_is_refused(
    pocket: Bench, args: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ToolRefused, match=message):
        pocket.run("prediction_story", text=PROMPT, n_texts=4, **args)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"how does the model come to ' March' after '{PROMPT}'", " March"),
        (f"How does it get to March after '{PROMPT}'?", "March"),
        (f"which layer decides on ' March' after '{PROMPT}'", " March"),
        (f"which layers decide after '{PROMPT}'", ""),
        (f"tell me the story of ' March' after '{PROMPT}'", " March"),
    ],
)
def test_stories_are_asked_for_in_several_wordings(text: str, answer: str) -> None:
    question = parse_question(text)
    assert (question.intent, question.answer, question.prompt) == ("story", answer, PROMPT)


def test_a_story_without_a_prompt_is_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="names no prompt"):
        parse_question("how does the model come to ' March'")
    assert parse_question("how did head 4.2 come to be").intent == "explain"


def test_a_story_is_told_with_its_lens_its_claim_and_what_the_notebook_holds(
    neuronaut: Command, tmp_path: Path
) -> None:
    planted, folder = plant(1, tmp_path / "model"), tmp_path / "model"
    corpus, book = tmp_path / "text.jsonl", tmp_path / "n.db"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(1, 1200)), encoding="utf-8")
    prompt = texts(101, 1)[0]
    given = ("--model", folder, "--corpus", corpus, "--notebook", book, "--json")
    said = neuronaut("ask", f"how does the model come to its answer after '{prompt}'", *given)
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    (found,) = answer["measured"]
    assert found["tool"] == "prediction_story"
    assert any(f"layer {planted.decides} decides" in line for line in found["lines"])
    neuron = planted.neurons[PIECES.index(prompt.split()[-2]) - 1]
    assert {claim["unit"] for claim in answer["claims"]} == {neuron}
    assert answer["known"] == []
    again = json.loads(neuronaut("ask", f"which layer decides after '{prompt}'", *given).out)
    assert [(one["unit"], one["run"]) for one in again["known"]] == [(neuron, answer["run"])]
    assert neuronaut("verify", "--notebook", book).code == 0
    assert neuronaut("rerun", again["run"], "--notebook", book).out.split()[0] == "identical"
