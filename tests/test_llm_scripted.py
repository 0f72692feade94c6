"""A script gives its replies in order, with tool calls, and says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.llm.base import COMPLETE, Call, LanguageModelError, Request
from neuronaut.agent.llm.scripted import ScriptedModel
from neuronaut.tools.errors import UserError
from neuronaut.tools.registry import find_tool

REQUEST = Request("talk", "the system prompt", "the prompt")


def scripted(folder: Path, *entries: Any) -> ScriptedModel:
    path = folder / "script.json"
    path.write_text(json.dumps(entries))
    return ScriptedModel.from_file(path)


def test_replies_come_in_order_and_the_last_one_again(tmp_path: Path) -> None:
    model = scripted(tmp_path, {"x": 1}, "words")
    assert [model.ask(REQUEST).text for _ in range(3)] == ['{"x": 1}', "words", "words"]


def test_a_turn_may_call_tools_with_any_arguments(tmp_path: Path) -> None:
    calls = [
        {"name": "ask", "arguments": {"question": "q"}},
        {"id": "c7", "name": "no such tool", "arguments": "{not JSON"},
    ]
    reply = scripted(tmp_path, {"text": "I look.", "calls": calls}).ask(REQUEST)
    assert reply.calls == (Call("call_1_1", "ask", '{"question": "q"}'), Call("c7", "no such tool", "{not JSON"))
    assert (reply.text, reply.stop_reason in COMPLETE) == ("I look.", True)


def test_an_object_with_other_fields_is_a_reply_and_no_turn(tmp_path: Path) -> None:
    reply = scripted(tmp_path, {"calls": [], "hypotheses": []}).ask(REQUEST)
    assert json.loads(reply.text) == {"calls": [], "hypotheses": []}
    assert reply.calls == ()


def test_what_is_heard_is_the_reply_in_pieces(tmp_path: Path) -> None:
    heard: list[str] = []
    reply = scripted(tmp_path, " two  words\nand more ").ask(REQUEST, heard.append)
    assert len(heard) > 2
    assert "".join(heard) == reply.text


def test_an_error_is_raised_in_its_turn() -> None:
    model = ScriptedModel([LanguageModelError("lost"), "found"])
    with pytest.raises(LanguageModelError, match="lost"):
        model.ask(REQUEST)
    assert model.ask(REQUEST).text == "found"


def test_the_source_tells_scripts_apart_and_stays_the_same(tmp_path: Path) -> None:
    sources = [scripted(tmp_path, *entries).source for entries in (["a"], ["b"], [{"calls": [{"name": "a"}]}], ["a"])]
    assert sources[0] == sources[3]
    assert len(set(sources)) == 3


@pytest.mark.parametrize("calls", ["x", [3], [{"arguments": {}}], [{"name": 3}], [{"name": "a", "args": {}}]])
def test_calls_that_are_none_are_refused(tmp_path: Path, calls: Any) -> None:
    with pytest.raises(UserError, match=r"reply 1 .* has calls that are none"):
        scripted(tmp_path, {"calls": calls})


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[" * 100_000, "[]"])
def test_a_file_that_is_no_list_of_replies_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"list of replies|at least one reply"):
        ScriptedModel.from_file(path)


def test_the_example_of_a_call_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        scripted(tmp_path, {"calls": "x"})
    example = str(refused.value).partition("write each as ")[2]
    [call] = scripted(tmp_path, {"calls": [json.loads(example)]}).ask(REQUEST).calls
    registered = find_tool(call.name)
    assert registered.parse(json.loads(call.arguments)).model_dump()["unit"] == "8.481"


@pytest.mark.parametrize("entry", [None, 1, 2.5, True, ["x"]])
def test_an_entry_that_is_no_reply_is_refused_with_its_place(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(UserError, match=r"reply 2 of the script .* which is none: write an object, a text") as refused:
        scripted(tmp_path, "words", entry)
    assert f" is {json.dumps(entry)}, " in str(refused.value)
