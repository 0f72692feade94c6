"""What one question may ask without limits of the user's own: all that is asked for it counts, also inside a conversation."""

import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.config import Budget as Limits
from neuronaut.agent.llm import budget
from neuronaut.agent.llm.scripted import ScriptedModel
from neuronaut.agent.proposers import grammar
from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook

Command = Callable[..., Any]
LOOKING = {"text": "", "calls": [{"name": "mistakes", "arguments": {}}]}  # for ever: five calls of a side
UNIT = {"question": "what does neuron 0.3 do", "say": ""}
CARD = {"question": "tool model_card", "say": ""}
TOLD = {"sentences": []}


def asking(question: str) -> dict[str, Any]:
    """A turn of a conversation that asks a question."""
    return {"text": "I ask.", "calls": [{"name": "ask_question", "arguments": {"question": question}}]}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "n.db"


@pytest.fixture
def llm(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    def script(*replies: Any) -> tuple[str, ...]:
        (tmp_path / "script.json").write_text(json.dumps(replies))
        return ("--llm", f"scripted:{tmp_path / 'script.json'}")

    return script


class Silent:
    """Stands for the search, which takes longer than all that is tested here."""

    name = "grammar"

    def propose(self, explored: Explored) -> list[Proposal]:
        return []


@pytest.fixture
def ask(neuronaut: Command, tiny: tuple[str, ...], book: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(grammar, "GrammarProposer", lambda seed: Silent())
    return lambda question, *more: neuronaut("ask", question, *tiny, *more, "--notebook", book, "--json", "--fast")


@pytest.fixture
def talk(neuronaut: Command, tiny: tuple[str, ...], book: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A conversation that needs no leave, in JSON lines."""

    def say(*lines: str, options: tuple[str, ...]) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chosen = options if "--go-on" in options else (*tiny, *options)
        said = neuronaut("chat", *chosen, "--approve", "always", "--notebook", book, "--json")
        assert said.code == 0, said.err
        return [json.loads(line) for line in said.out.splitlines()]

    return say


def about(book: Path) -> dict[str, Counter[Any]]:
    """How many calls each run made about what; its own run is "own"."""
    with Notebook(book, read_only=True) as notebook:
        runs = {str(run["id"]): run["question"] for run in queries.runs(notebook)}
        return {
            question: Counter("own" if one["about"] == run else one["about"] for one in queries.calls(notebook, run))
            for run, question in runs.items()
        }


class Killed(BaseException):
    """The process dies while it waits for a reply."""


@contextmanager
def killed(at: int) -> Iterator[None]:
    """Whatever is done here dies at a request to a scripted model."""
    asked, whole = [0], ScriptedModel.ask

    def ask(model: ScriptedModel, *given: Any) -> Any:
        asked[0] += 1
        if asked[0] == at:
            raise Killed
        return whole(model, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedModel, "ask", ask)
        with pytest.raises(Killed):
            yield


# A question


def test_rewording_proposing_and_telling_share_the_limits_of_the_unit(
    ask: Command, book: Path, llm: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "UNIT", Limits(calls=8, tokens=17_000))
    words = "what would unit three of the first layer do"
    said = ask(words, *llm("no JSON", UNIT, *[LOOKING] * 5, "no JSON"))
    assert about(book) == {words: Counter({"own": 2, "0.3": 6})}  # the last of them to tell
    assert "not told in words: the budget of 8 calls for 0.3 is spent; the next one was not made" in said.err
    answer = json.loads(said.out)
    assert (said.code, answer["outcome"], answer["cost"]["llm_calls"]) == (0, "answered", 8)


def test_a_question_without_a_unit_has_the_limits_of_one(
    ask: Command, book: Path, llm: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "UNIT", Limits(calls=3, tokens=17_000))
    said = ask("say something about yourself", *llm("no JSON", CARD, "no JSON"))
    assert about(book) == {"say something about yourself": Counter({"own": 3})}
    assert "not told in words: the budget of 3 calls for " in said.err
    assert (said.code, json.loads(said.out)["outcome"]) == (0, "answered")


def test_limits_of_the_users_own_end_a_run_that_cannot_tell(ask: Command, llm: Callable[..., tuple[str, ...]]) -> None:
    said = ask("say something about yourself", *llm("no JSON", CARD, "no JSON"), "--budget-calls", 3)
    assert (said.code, json.loads(said.out)["outcome"]) == (1, "out_of_budget")


def test_what_was_asked_before_a_kill_counts_for_the_unit_of_a_resumed_run(
    ask: Command,
    neuronaut: Command,
    book: Path,
    llm: Callable[..., tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "UNIT", Limits(calls=8, tokens=17_000))
    words = "what would unit three of the first layer do"
    with killed(at=4):
        ask(words, *llm("no JSON", UNIT, *[LOOKING] * 5, "no JSON"))
    with Notebook(book, read_only=True) as notebook:
        [run] = [str(run["id"]) for run in queries.runs(notebook)]
    said = neuronaut("resume", run, "--notebook", book, "--json")
    assert about(book) == {words: Counter({"own": 2, "0.3": 6})}  # one of them lost, so that none is left to tell
    assert "not told in words: the budget of 8 calls for 0.3 is spent" in said.err
    cost = json.loads(said.out)["cost"]
    assert (said.code, cost["maybe_billed_twice"], cost["uncounted"]) == (0, 1, 1)
    shown = neuronaut("show", run, "--notebook", book).out
    assert f"(at most {cost['tokens']:,} tokens, price unknown, 1 maybe billed twice)" in shown


# A conversation


def test_a_conversation_has_no_limits_of_its_own_and_each_question_in_it_has_those_of_a_unit(
    talk: Command, book: Path, llm: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "UNIT", Limits(calls=1, tokens=17_000))
    first, second = 'tool promoted_tokens {"unit": "0.3"}', "tool model_card"
    script = [asking(first), "no JSON", asking(second), "no JSON", "Done.", *(f"Reply {n}." for n in range(5))]
    events = talk("look", *(f"line {n}" for n in range(5)), options=llm(*script))
    assert [event["text"] for event in events if event["type"] == "said"][-1] == "Reply 4."
    found = about(book)
    assert (found[first], found[second]) == (Counter({"own": 1}), Counter({"own": 1}))
    assert found["a conversation"] == Counter({None: 8})


def test_a_question_in_a_conversation_that_was_killed_goes_on_with_what_is_left_of_its_limits(
    talk: Command, book: Path, llm: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "UNIT", Limits(calls=4, tokens=17_000))
    words = "say something about yourself"
    with killed(at=3):
        talk("look", options=llm(asking(words), "no JSON", CARD, "no JSON", "Done."))
    with Notebook(book, read_only=True) as notebook:
        outer = next(str(run["id"]) for run in queries.runs(notebook) if run["question"] == "a conversation")
    events = talk("/cost", options=("--go-on", outer))
    found = about(book)
    assert found == {
        "a conversation": Counter({None: 2}),
        words: Counter({"own": 4}),
    }  # one of them lost, none left to mend
    costs = [event["text"] for event in events if "forward passes" in str(event.get("text"))]
    assert costs[-1].startswith("6 calls, ")


def test_the_limits_of_a_conversation_count_what_was_asked_inside_it_before_a_stop(
    talk: Command, book: Path, llm: Callable[..., tuple[str, ...]]
) -> None:
    talk("look", options=(*llm(asking("tool model_card"), TOLD, "Done.", "More."), "--budget-calls", "3"))
    with Notebook(book, read_only=True) as notebook:
        outer = next(str(run["id"]) for run in queries.runs(notebook) if run["question"] == "a conversation")
    events = talk("more", options=("--go-on", outer))
    assert sum(sum(of.values()) for of in about(book).values()) == 3
    assert any("the budget of 3 calls is spent" in str(event.get("text")) for event in events)
