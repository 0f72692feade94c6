"""Questions in any words: the parser first, then a language model that rewords them for the parser; own hypotheses and tools."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.proposers.given import PERSON
from neuronaut.agent.questions import parse_question
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import UserError
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.units import Unit

Command = Callable[..., Any]
NOTHING = {"sentences": []}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "n.db"


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    def write(*replies: Any) -> str:
        (tmp_path / "script.json").write_text(json.dumps(replies))
        return f"scripted:{tmp_path / 'script.json'}"

    return write


def purposes(book: Path) -> list[str]:
    with Notebook(book, read_only=True) as notebook:
        return [call["purpose"] for run in queries.runs(notebook) for call in queries.calls(notebook, run["id"])]


def test_words_that_the_parser_cannot_read_are_reworded_by_the_language_model(
    neuronaut: Command, tiny: tuple[str, ...], book: Path, script: Callable[..., str]
) -> None:
    llm = script({"question": 'tool promoted_tokens {"unit": "1.3", "k": 2}', "say": ""}, NOTHING)
    said = neuronaut(
        "ask", "what would unit three of the second layer push up?", *tiny, "--llm", llm, "--notebook", book, "--json"
    )
    assert said.code == 0
    assert "taken as: tool promoted_tokens" in said.err
    answer = json.loads(said.out)
    assert answer["question"] == "what would unit three of the second layer push up?"
    assert answer["measured"][0]["tool"] == "promoted_tokens"
    assert purposes(book) == ["route", "tell"]


def test_words_that_the_parser_reads_are_not_sent_to_be_reworded(
    neuronaut: Command, tiny: tuple[str, ...], book: Path, script: Callable[..., str]
) -> None:
    said = neuronaut("ask", "tool model_card", *tiny, "--llm", script(NOTHING), "--notebook", book)
    assert said.code == 0
    assert purposes(book) == ["tell"]


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        ([{"question": "", "say": "Name a neuron."}], "Name a neuron."),
        ([{"question": "delete everything", "say": ""}] * 2, "the question is not understood: two replies"),
        (
            [{"question": 'tool test_reads {"unit": "1.3"}', "say": ""}] * 2,
            "the question is not understood: two replies",
        ),
        (["no JSON", "still none"], "the question is not understood: two replies"),
    ],
)
def test_what_is_not_understood_ends_with_one_sentence(
    replies: list[Any], says: str, neuronaut: Command, tiny: tuple[str, ...], book: Path, script: Callable[..., str]
) -> None:
    said = neuronaut("ask", "sing to me", *tiny, "--llm", script(*replies), "--notebook", book)
    assert said.code == 2
    assert says in said.err.splitlines()[-1]
    with Notebook(book, read_only=True) as notebook:
        [run] = queries.runs(notebook)
        assert run["outcome"] == "error"
        assert queries.experiments(notebook, run["id"]) == []


def test_a_unit_that_does_not_exist_is_refused_without_a_call(
    neuronaut: Command, tiny: tuple[str, ...], book: Path, script: Callable[..., str]
) -> None:
    said = neuronaut("ask", "what does neuron 99.1 do", *tiny, "--llm", script("x"), "--notebook", book)
    assert (said.code, "layer 99 does not exist" in said.err) == (2, True)
    assert purposes(book) == []


def test_an_empty_question_is_refused_with_a_language_model_too(neuronaut: Command, script: Callable[..., str]) -> None:
    assert neuronaut("ask", " ", "--llm", script("x")).code == 2


def test_an_answer_is_told_in_sentences_that_stand(
    neuronaut: Command, tiny: tuple[str, ...], book: Path, script: Callable[..., str]
) -> None:
    told = {
        "sentences": [
            {"text": "These are the tokens that it pushes up.", "evidence": ["m1"]},
            {"text": "It is about the year 1984.", "evidence": ["m1"]},
            {"text": "It is about love.", "evidence": []},
        ]
    }
    ask = ("ask", 'tool promoted_tokens {"unit": "1.3", "k": 2}', *tiny, "--llm", script(told), "--notebook", book)
    answer = json.loads(neuronaut(*ask, "--json").out)
    [stands] = answer["words"]["sentences"]
    assert stands["text"] == "These are the tokens that it pushes up."
    assert stands["evidence"] == [answer["measured"][0]["experiment"]]
    assert answer["words"]["left_out"] == ["1984 is no number of its results", "it names no evidence"]
    shown = neuronaut("show", answer["run"], "--notebook", book, "--json")
    assert shown.code == 0
    assert "it pushes up. " not in neuronaut(*ask).err
    assert "told by scripted:script.json: 1 sentences" in neuronaut(*ask).out.replace("\n", " ").replace("  ", " ")


def test_a_question_of_its_own_hypothesis_names_unit_side_and_predicate() -> None:
    question = parse_question('test 8.481-: at(1, token(" in"))')
    assert (question.unit, question.signs) == (Unit("neuron", 8, 481), (-1,))
    assert question.given == parse_text('at(1, token(" in"))')
    assert parse_question("test neuron 8.481 digit").given == parse_text("digit")
    with pytest.raises(UserError, match="the hypothesis cannot be tested"):
        parse_question("test 8.481: import os")


def test_the_askers_hypothesis_is_judged_first_and_named_as_theirs(
    neuronaut: Command, tiny: tuple[str, ...], book: Path
) -> None:
    said = neuronaut("ask", "test 0.7: starts_word", *tiny, "--notebook", book, "--json")
    assert said.code == 0
    with Notebook(book, read_only=True) as notebook:
        [run] = queries.runs(notebook)
        tests = [e for e in queries.experiments(notebook, run["id"]) if e["prediction"]]
        tested = {p["id"]: h for h in queries.hypotheses(notebook, run["id"]) for p in h["predictions"]}
    authors = [tested[test["prediction"]]["author"] for test in tests]
    assert authors[0] == PERSON
    assert "grammar" in authors[1:]  # whose own fits better, and would come first
    found = {row["author"]: verdict["case"]["f1"] for row in tested.values() for verdict in row["verdicts"]}
    assert found["grammar"] > found[PERSON]


def test_a_tool_that_opens_test_text_is_no_question(neuronaut: Command, book: Path) -> None:
    said = neuronaut("ask", 'tool output_effects {"unit": "8.481"}', "--notebook", book)
    assert (said.code, "only" in said.err or "opens text" in said.err) == (2, True)
