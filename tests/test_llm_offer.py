"""Tools as language models see and call them."""

import json
from typing import Any

import pytest

from neuronaut.agent.chat.actions import looks
from neuronaut.agent.llm.base import Call
from neuronaut.agent.llm.offer import called, offered
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.registry import Tool, registry

OPEN = looks()
WITHHELD = {"intervene", "chat_tokens", "activations_in_generation"}  # beside those that open test text
STRICT = {"type", "properties", "required", "additionalProperties", "description", "anyOf", "enum", "items"}


def _words_of(schema: Any) -> set[str]:
    """The keywords of a schema; names of properties are none."""
    if isinstance(schema, list):
        return set().union(*map(_words_of, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    inner = {key: value for key, value in schema.items() if key not in ("properties", "required", "enum")}
    return set(schema).union(*map(_words_of, [*inner.values(), *schema.get("properties", {}).values()]))


@pytest.mark.parametrize("tool", OPEN, ids=lambda tool: tool.name)
def test_a_tool_is_offered_as_a_flat_strict_function(tool: Tool) -> None:
    schema = offered(tool).arguments
    assert _words_of(schema) <= STRICT
    assert schema["required"] == list(schema["properties"]) == list(tool.args.model_fields)
    assert schema["additionalProperties"] is False
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize("tool", OPEN, ids=lambda tool: tool.name)
def test_a_call_with_null_for_every_default_is_the_example(tool: Tool) -> None:
    given = {name: tool.args.example.get(name) for name in offered(tool).arguments["properties"]}
    found, args = called(Call("1", tool.name, json.dumps(given)), OPEN)
    assert (found, args) == (tool, tool.parse(tool.args.example))


def test_text_on_which_claims_are_tested_is_opened_by_no_call() -> None:
    closed = [tool for tool in registry().values() if tool.opens_test_text]
    assert len(closed) > 5
    for tool in closed:
        with pytest.raises(ToolRefused, match="only the loop runs it"):
            offered(tool)
        with pytest.raises(ToolRefused, match="there is no tool"):
            called(Call("1", tool.name, json.dumps(tool.args.example)), OPEN)


def test_the_bounds_of_an_argument_are_said_and_kept() -> None:
    schema = offered(registry()["top_examples"]).arguments
    assert "from 1 to" in schema["properties"]["k"]["description"]
    with pytest.raises(ToolRefused, match="argument k"):
        called(Call("1", "top_examples", '{"unit": "8.481", "k": 100000000}'), OPEN)


def test_what_opens_test_text_and_what_is_withheld_is_not_offered() -> None:
    free = {name for name, tool in registry().items() if not tool.opens_test_text}
    assert {tool.name for tool in OPEN} == free - WITHHELD
