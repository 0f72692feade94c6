"""Questions about prompts, kinds of heads and circuits, from the words to the answer in the notebook."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.tools.tasks.catalogue import tasks

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("causes") / "notebook.db"


@pytest.fixture(scope="module")
def circuit(neuronaut: Command, notebook: Path) -> dict[str, Any]:
    said = neuronaut("ask", "find the circuit for increasing months", "--notebook", notebook, "--json")
    assert said.code == 0, said.err
    return dict(json.loads(said.out))


def test_what_a_prompt_rests_on_is_measured_and_shown(neuronaut: Command, notebook: Path) -> None:
    question = "which heads matter for 'In January, February, March,'"
    said = neuronaut("ask", question, "--notebook", notebook, "--json")
    answer = json.loads(said.out)
    (found,) = answer["measured"]
    assert found["tool"] == "importance"
    assert '" April"' in found["title"]
    assert found["lines"][0].startswith("L0H0")
    assert answer["claims"] == []
    assert "L0H0" in neuronaut("show", answer["run"], "--notebook", notebook).out
    again = neuronaut("rerun", answer["run"], "--notebook", notebook)
    assert (again.code, again.out.split()[0]) == (0, "identical")


def test_why_an_answer_is_given_is_told_by_parts_layers_and_attention(neuronaut: Command, notebook: Path) -> None:
    said = neuronaut(
        "ask", "why does the model say March after 'In January, February,'", "--notebook", notebook, "--json"
    )
    answer = json.loads(said.out)
    assert [found["tool"] for found in answer["measured"]] == ["importance", "importance", "logit_lens", "attention_on"]
    assert any(line.startswith("output") and "March" in line for line in answer["measured"][2]["lines"])
    assert answer["figures"]


def test_a_circuit_is_registered_before_it_is_tested_on_unseen_prompts(circuit: dict[str, Any]) -> None:
    (claim,) = circuit["claims"]
    assert (claim["side"], claim["unit"]) == ("circuit", "task:months")
    assert claim["status"] in ("SUPPORTED", "PARTIAL")
    assert claim["numbers"]["percentile"] >= 95
    assert claim["numbers"]["necessity_high"] < 0.3
    assert len(claim["predicate"]["members"]) == claim["numbers"]["members"]
    assert claim["numbers"]["n_claims"] == 1


def test_the_notebook_of_a_circuit_is_whole_and_its_pictures_can_be_kept(
    neuronaut: Command, notebook: Path, circuit: dict[str, Any], tmp_path: Path
) -> None:
    assert neuronaut("verify", "--notebook", notebook).code == 0
    shown = neuronaut("show", circuit["run"], "--notebook", notebook, "--figures", tmp_path / "figures")
    assert shown.code == 0, shown.err
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert {"find_circuit-circuit.svg", "test_circuit-faithfulness.svg"} <= names
    drawn = (tmp_path / "figures" / "find_circuit-circuit.svg").read_text(encoding="utf-8")
    assert all(member in drawn for member in circuit["claims"][0]["predicate"]["members"])


def test_the_same_question_is_answered_from_the_notebook(
    neuronaut: Command, notebook: Path, circuit: dict[str, Any]
) -> None:
    said = neuronaut("ask", "find the circuit for increasing months", "--notebook", notebook, "--json")
    assert json.loads(said.out)["run"] == circuit["run"]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("find the circuit for love", "names no task: choose from"),
        ("compare the circuits of months and increasing months", "names the task 'months' twice"),
        ("which heads matter for '" + "a " * 400 + "'", "tokens"),
        ("what does head 99.1 do", "layer 99 does not exist"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    neuronaut: Command, notebook: Path, question: str, says: str
) -> None:
    said = neuronaut("ask", question, "--notebook", notebook)
    assert said.code == 2
    assert says in said.err.splitlines()[-1]
    assert "Traceback" not in said.err


def test_a_task_that_the_model_cannot_do_is_said_to_be_one(
    neuronaut: Command, tiny: tuple[str, ...], notebook: Path
) -> None:
    assert any(task.name == "months" for task in tasks())
    said = neuronaut("ask", "find the circuit for repeated tokens", *tiny, "--notebook", notebook, "--json")
    answer = json.loads(said.out)
    assert said.code == 0
    (outcome,) = answer["outcomes"]
    assert outcome["status"] == "ABSTAINED"
    assert "accuracy" in outcome["reason"] or "tokenizer" in outcome["reason"]
