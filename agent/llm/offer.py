"""Registered tools as a language model may call them: flat strict schemas out, checked arguments back in."""

import json
from collections.abc import Iterable
from typing import Any

from neuronaut.agent.llm.base import Call, Offered, plain
from neuronaut.agent.tool_output import kind_in_words
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.registry import Tool, ToolArgs

PLAIN = ("string", "integer", "number", "boolean")
MAX_ARGUMENTS = 20_000  # characters


def offered(tool: Tool) -> Offered:
    """The tool with a schema that strict function calling takes: every property is required, null stands for its default,
    and bounds are said in words. Where a text or a chat may be given, it takes texts alone. Refuses a tool that takes objects or
    opens text on which claims are tested."""
    if tool.opens_test_text:
        raise ToolRefused(f"{tool.name} opens text on which claims are tested: only the loop runs it")
    schema = as_plain_text(tool.args.model_json_schema())
    needed = schema.get("required", [])
    fields = {
        name: {**_plain(tool, field, name not in needed), "description": _words(schema, name, name not in needed)}
        for name, field in schema.get("properties", {}).items()
    }
    arguments = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    about = " ".join((tool.args.__doc__ or "").split())
    return Offered(tool.name, f"{tool.summary} {about}", arguments)


def as_plain_text(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with text alone where text or the messages of a chat may be given: strict schemas take no objects."""

    def plainly(value: Any) -> Any:
        if isinstance(value, list):
            return [plainly(one) for one in value]
        if not isinstance(value, dict):
            return value
        kinds = value.get("anyOf", [])
        text = [one for one in kinds if one.get("type") == "string"]
        if text and any(one.get("items") == {"$ref": "#/$defs/Message"} for one in kinds):
            return {**{key: one for key, one in value.items() if key != "anyOf"}, **text[0]}
        return {key: plainly(one) for key, one in value.items()}

    found: dict[str, Any] = plainly(schema)
    return found


def _words(schema: dict[str, Any], name: str, optional: bool) -> str:
    field = schema["properties"][name]
    default = f"; null: {json.dumps(field.get('default'), ensure_ascii=False)}" if optional else ""
    return kind_in_words(field, schema) + default


def _plain(tool: Tool, field: dict[str, Any], optional: bool) -> dict[str, Any]:
    """The type of a property without bounds, which strict schemas do not take."""
    kinds = [_type(tool, one) for one in field.get("anyOf", [field])]
    kinds += [{"type": "null"}] * (optional and {"type": "null"} not in kinds)
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _type(tool: Tool, field: dict[str, Any]) -> dict[str, Any]:
    kind = field.get("type")
    if "enum" in field or "const" in field:
        return {"type": "string", "enum": field.get("enum", [field.get("const")])}
    if kind == "array":
        items = field.get("items") or {"anyOf": field["prefixItems"]}
        return {"type": "array", "items": _plain(tool, items, False)}
    if kind in (*PLAIN, "null"):
        return {"type": kind}
    raise ToolRefused(f"{tool.name} takes arguments that are no plain values: it is not offered")


def called(call: Call, tools: Iterable[Tool], beside: Iterable[str] = ()) -> tuple[Tool, ToolArgs]:
    """The tool and the arguments of a call. Refuses, in one sentence, a name that was not offered and arguments that do not
    fit; nothing is guessed or run. beside: names of what is offered and no tool."""
    known = {tool.name: tool for tool in tools}
    if call.name not in known:
        raise ToolRefused(f"there is no tool {plain(call.name, 60)!r} here: choose from {', '.join([*beside, *known])}")
    tool = known[call.name]
    given = arguments_of(call)
    needed = tool.args.model_json_schema().get("required", [])
    return tool, tool.parse({name: value for name, value in given.items() if value is not None or name in needed})


def arguments_of(call: Call) -> dict[str, Any]:
    """The arguments of a call as an object. Refuses text that is none."""
    if len(call.arguments) > MAX_ARGUMENTS:
        raise ToolRefused(f"{plain(call.name, 60)}: the arguments are longer than {MAX_ARGUMENTS:,} characters")
    try:
        given = json.loads(call.arguments or "{}")
        json.dumps(given, ensure_ascii=False).encode()  # half of a surrogate pair cannot be stored
    except (ValueError, RecursionError):
        raise ToolRefused(f"{plain(call.name, 60)}: the arguments are not JSON") from None
    if not isinstance(given, dict):
        raise ToolRefused(f"{plain(call.name, 60)}: the arguments are no JSON object")
    return given
