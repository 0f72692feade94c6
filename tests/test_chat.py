"""Conversations: what is shown, what needs leave, what is refused, and going on after a stop at any point."""

import io
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.chat import app
from neuronaut.agent.chat.actions import DEAR, all_offered
from neuronaut.agent.chat.screen import Sentences
from neuronaut.agent.chat.turns import LEFT_OUT, LONGEST, as_turns, as_value
from neuronaut.agent.llm.base import Call, Said, Told
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook

Talk = Callable[..., list[dict[str, Any]]]
LOOK = {"text": "I look.", "calls": [{"name": "promoted_tokens", "arguments": {"unit": "1.3", "k": 2}}]}
ASK = {
    "text": "I ask.",
    "calls": [{"name": "ask_question", "arguments": {"question": 'tool promoted_tokens {"unit": "1.3"}'}}],
}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "n.db"


@pytest.fixture
def talk(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Talk:
    """A conversation in JSON lines: a script, the person's lines, options."""

    def say(
        script: list[Any] | None, *lines: str, options: tuple[str, ...] = tiny, code: int = 0
    ) -> list[dict[str, Any]]:
        if script is not None:
            (tmp_path / "script.json").write_text(json.dumps(script))
            options = (*options, "--llm", f"scripted:{tmp_path / 'script.json'}")
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        said = neuronaut("chat", *options, "--notebook", book, "--json")
        assert said.code == code, said.err
        return [json.loads(line) for line in said.out.splitlines()]

    return say


def kinds(events: list[dict[str, Any]], *wanted: str) -> list[str]:
    return [event["text"] for event in events if event["type"] in wanted]


def conversation(book: Path) -> str:
    with Notebook(book, read_only=True) as notebook:
        return next(str(run["id"]) for run in queries.runs(notebook) if run["question"] == "a conversation")


def sent(book: Path) -> list[dict[str, Any]]:
    """The requests of the conversation."""
    with Notebook(book, read_only=True) as notebook:
        return [json.loads(call["request"]) for call in queries.calls(notebook, conversation(book))]


def test_a_call_is_shown_done_and_its_result_goes_back_between_marks(talk: Talk, book: Path) -> None:
    events = talk([LOOK, "It pushes up two tokens."], "what does 1.3 push up?")
    assert kinds(events, "said") == ["I look.", "It pushes up two tokens."]
    assert kinds(events, "call") == ['promoted_tokens {"unit": "1.3", "k": 2}']
    [result] = kinds(events, "result")
    assert "promoted" in result
    first, second = sent(book)
    assert "turns" not in first
    model, ours = second["turns"]
    [(name, text)] = ours["results"]
    assert name == model["calls"][0]["id"]
    assert text.startswith("<result ")
    assert result.splitlines()[0] in text
    assert (first["system"], first["prompt"], first["tools"]) == (second["system"], second["prompt"], second["tools"])


def test_each_request_begins_with_the_one_before(talk: Talk, book: Path) -> None:
    talk([LOOK, "One.", LOOK, "Two."], "first?", "second?")
    requests = sent(book)
    assert len(requests) == 4
    turns = [request.get("turns", []) for request in requests]
    for earlier, later in itertools.pairwise(turns):
        assert later[: len(earlier)] == earlier
        assert len(later) > len(earlier)


@pytest.mark.parametrize(("leave", "done"), [("y", True), ("n", False), ("", False), ("yes please", False)])
def test_a_dear_experiment_is_run_only_where_the_person_allows_it(
    leave: str, done: bool, talk: Talk, book: Path
) -> None:
    events = talk([ASK, "Done.", {"sentences": []}], "do it", leave)
    [asked] = kinds(events, "approve")
    assert asked.startswith("ask_question")
    with Notebook(book, read_only=True) as notebook:
        assert len(queries.runs(notebook)) == 1 + done
    assert any(event["type"] == "answer" for event in events) == done
    text = sent(book)[1]["turns"][1]["results"][0][1]
    assert ("did not allow" in text) != done


@pytest.mark.parametrize(("approve", "done"), [("always", True), ("never", False)])
def test_leave_can_be_given_or_refused_beforehand(
    approve: str, done: bool, talk: Talk, book: Path, tiny: tuple[str, ...]
) -> None:
    events = talk([ASK, {"sentences": []}, "Done."], "do it", options=(*tiny, "--approve", approve))
    assert kinds(events, "approve") == []
    with Notebook(book, read_only=True) as notebook:
        assert len(queries.runs(notebook)) == 1 + done


@pytest.mark.parametrize(
    "call",
    [
        {"name": "bash", "arguments": {"command": "rm -rf /"}},
        {"name": "test_reads", "arguments": {"unit": "1.3", "claim": "digit", "block": 0}},
        {"name": "top_examples", "arguments": {"unit": "1.3", "path": "/etc/passwd"}},
        {"name": "top_examples", "arguments": {"unit": "9999.3"}},
        {"name": "ask_question", "arguments": {"question": "1; DROP TABLE run"}},
        {"name": "ask_question", "arguments": {"question": "", "model": "other"}},
        {"name": "test_hypothesis", "arguments": {"unit": "1.3", "predicate": "__import__('os')"}},
        {"name": "test_hypothesis", "arguments": {"unit": "L1H0", "predicate": "digit"}},
        {"name": "show_record", "arguments": {"id": "../../secret"}},
        {"name": "search_findings", "arguments": {"words": 7}},
    ],
    ids=lambda call: f"{call['name']} {list(call['arguments'].values())[-1]}",
)
def test_a_wrong_call_is_one_sentence_and_does_nothing(
    call: dict[str, Any], talk: Talk, book: Path, tiny: tuple[str, ...]
) -> None:
    events = talk([{"text": "", "calls": [call]}, "Well."], "go on", options=(*tiny, "--approve", "always"))
    [result] = kinds(events, "result")
    assert result.startswith("refused: ")
    with Notebook(book, read_only=True) as notebook:
        runs = queries.runs(notebook)
        assert not any("result" in one for run in runs for one in queries.experiments(notebook, run["id"]))
        assert not any(queries.hypotheses(notebook, run["id"]) for run in runs)
    assert kinds(events, "said") == ["Well."]


def test_a_sentence_that_cites_what_is_not_there_is_held_back() -> None:
    shown: list[str] = []
    words = Sentences(shown.append, lambda sentence: "AC]" not in sentence)
    for piece in (
        "It is so [01HZX5T5R9D3N2",
        "Q8J4V6W7Y0AB]. It is ",
        "not so [01HZX5T5R9D3N2Q8J4V6W7Y0AC].",
        " I think",
    ):
        words.hear(piece)
    words.end()
    assert shown == ["It is so [01HZX5T5R9D3N2Q8J4V6W7Y0AB].", "I think"]
    assert words.held_back == 1


def test_a_verdict_is_named_only_beside_a_record_that_has_it(
    talk: Talk, book: Path, neuronaut: Callable[..., Any]
) -> None:
    asked = json.loads(neuronaut("ask", 'test 6.457: token(" Kate")', "--fast", "--notebook", book, "--json").out)
    claim = next(one for one in asked["claims"] if one["status"] != "SUPPORTED")
    words = [
        f"It is {claim['status']} [{claim['id']}].", f"It is SUPPORTED [{claim['id']}].", f"It is {claim['status']}.",
        f"It was a question [{asked['run']}].", "It is REFUTED [01HZX5T5R9D3N2Q8J4V6W7Y0AC].", "It has been Proven.",
        "It is S\u200bUPPORTED.", "It was ｃｏｎｆｉｒｍｅｄ.",
    ]  # fmt: skip
    events = talk([" ".join(words)], "well?")
    assert kinds(events, "said") == [words[0], words[3]]
    assert any("6 of its sentences" in note for note in kinds(events, "note"))


def test_what_is_told_of_a_part_without_a_record_says_so(talk: Talk) -> None:
    told = [
        "Neuron 8.481 fires on names.",
        "L0H1 looks back.",
        "Shall I look at 8.481?",
        "Version 3.14.15 is out.",
        "I see.",
    ]
    events = talk([" ".join(told)], "well?")
    assert [one.endswith("(cites no record)") for one in kinds(events, "said")] == [True, True, False, False, False]


def test_without_a_language_model_each_line_is_a_question(talk: Talk, book: Path) -> None:
    events = talk(
        None, 'tool promoted_tokens {"unit": "1.3", "k": 2}', "what is love", "/findings", "/nonsense", "/cost"
    )
    assert [event["answer"]["question"] for event in events if event["type"] == "answer"] == [
        'tool promoted_tokens {"unit": "1.3", "k": 2}'
    ]
    refused, found = kinds(events, "result")
    assert refused.startswith("refused: 'what is love'")
    assert found == "nothing found"
    assert any("there is no command /nonsense" in note for note in kinds(events, "note"))
    assert any("forward passes" in note for note in kinds(events, "note"))


def test_a_conversation_goes_on_where_it_was_left(talk: Talk, book: Path) -> None:
    script = [LOOK, "First answer.", "Second answer."]
    talk(script, "first?")
    events = talk(None, "second?", options=("--go-on", conversation(book)))
    assert "you: first?" not in kinds(events, "said")
    assert kinds(events, "said")[-1] == "Second answer."
    assert [turn["text"] for turn in sent(book)[-1]["turns"]] == ["I look.", "", "First answer.", "second?"]


@pytest.mark.parametrize("at", ["think", "done"])
def test_a_conversation_that_was_killed_goes_on_without_doing_anything_twice(
    at: str, talk: Talk, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    step = getattr(app.Talk, at)

    def killed(*args: Any) -> Any:
        step(*args)
        raise Killed

    monkeypatch.setattr(app.Talk, at, killed)
    with pytest.raises(Killed):
        talk([LOOK, "Done.", "Bye."], "what?")
    monkeypatch.setattr(app.Talk, at, step)
    events = talk(None, "more?", options=("--go-on", conversation(book)))
    assert kinds(events, "said")[-2:] == ["Done.", "Bye."]
    with Notebook(book, read_only=True) as notebook:
        assert len(queries.experiments(notebook, conversation(book))) == 1
        assert len(queries.calls(notebook, conversation(book))) == 3


def test_leave_is_asked_again_after_a_stop(talk: Talk, book: Path) -> None:
    events = talk([ASK, "Done."], "do it")
    assert len(kinds(events, "approve")) == 1  # and the input ended
    events = talk(None, "n", options=("--go-on", conversation(book)))
    assert len(kinds(events, "approve")) == 1
    assert kinds(events, "said")[-1] == "Done."


def test_another_run_is_no_conversation(
    talk: Talk, book: Path, neuronaut: Callable[..., Any], tiny: tuple[str, ...]
) -> None:
    talk(None, "tool model_card")
    with Notebook(book, read_only=True) as notebook:
        question = next(run["id"] for run in queries.runs(notebook) if run["question"] == "tool model_card")
    assert neuronaut("chat", "--go-on", question, "--notebook", book).code == 2
    said = neuronaut("resume", conversation(book), "--notebook", book)
    assert (said.code, "neuronaut chat --go-on" in said.err) == (2, True)


def test_long_conversations_leave_out_the_oldest_results() -> None:
    call = Call("1", "x", "{}")
    values = [
        as_value(turn) for _ in range(5) for turn in (Said("", (call,)), Told("", (("1", "r" * (LONGEST // 4)),)))
    ]
    texts = [turn.results[0][1] for turn in as_turns(values) if isinstance(turn, Told)]
    assert [text == LEFT_OUT for text in texts] == [True, True, False, False, False]
    assert sum(map(len, texts)) <= LONGEST
    assert as_turns(values[:2])[1] == Told("", (("1", "r" * (LONGEST // 4)),))


def test_everything_dear_is_offered_and_nothing_that_opens_test_text() -> None:
    names = [tool.name for tool in all_offered()]
    assert set(names) >= DEAR
    assert not [
        name for name in names if name.startswith(("test_reads", "test_writes", "compare_on", "output_effects"))
    ]
    assert [tool.name for tool in all_offered()] == names
