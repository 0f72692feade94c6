"""What the real services refuse in a request: unknown parameters, loose schemas, tools and turns that do not fit together."""

import re
from collections.abc import Iterator
from typing import Any

from neuronaut.evals.fake_provider.script import Seen

ALLOWED = {
    "responses": {"model", "instructions", "input", "max_output_tokens", "store", "text", "tools", "stream"},
    "chat": {"model", "messages", "max_tokens", "response_format", "tools", "stream", "stream_options"},
    "messages": {
        "model", "max_tokens", "system", "messages", "output_config", "tools", "stream", "cache_control",
    },
}  # fmt: skip
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
KEYWORDS = {
    "type", "properties", "items", "anyOf", "enum", "const", "$ref", "$defs", "description", "title", "required",
    "additionalProperties",
}  # fmt: skip
Body = dict[str, Any]


class _Refused(Exception):
    """The sentence that the service answers with."""


def why_refused(seen: Seen) -> str:
    """What the real service would refuse in a request; "" where nothing."""
    try:
        if unknown := set(seen.body) - ALLOWED[seen.format]:
            raise _Refused(f"unknown parameters {sorted(unknown)}")
        {"responses": _responses, "chat": _chat, "messages": _messages}[seen.format](seen)
    except _Refused as refused:
        return str(refused)
    except (KeyError, TypeError, AttributeError) as error:
        return f"a parameter is missing or has a wrong type: {error!r}"
    return ""


def _need(holds: object, otherwise: str) -> None:
    if not holds:
        raise _Refused(otherwise)


def _responses(seen: Seen) -> None:
    body = seen.body
    if "text" in body:
        _form(body["text"]["format"])
    for tool in body.get("tools", []):
        _need(set(tool) == {"type", "name", "description", "parameters", "strict"}, "a tool is no flat function")
        _tool(tool["name"], tool["parameters"], tool["strict"])
    items = body["input"]
    if isinstance(items, str):
        return
    calls: list[tuple[str, str]] = []
    for item in items:
        match item.get("type", "message"):
            case "message":
                _need(item["role"] in ("user", "assistant") and isinstance(item["content"], str), "a message is none")
            case "function_call":
                _need(isinstance(item["arguments"], str) and NAME.fullmatch(item["name"]), "a call is none")
                calls.append(("call", item["call_id"]))
            case "function_call_output":
                _need(isinstance(item["output"], str), "an output is no text")
                calls.append(("output", item["call_id"]))
            case other:
                raise _Refused(f"unknown item {other!r}")
    _answered(calls)


def _chat(seen: Seen) -> None:
    body = seen.body
    if "response_format" in body:
        _form({"type": body["response_format"]["type"], **body["response_format"]["json_schema"]})
    for tool in body.get("tools", []):
        _need(set(tool) == {"type", "function"} and tool["type"] == "function", "a tool is no function")
        function = tool["function"]
        _need(set(function) == {"name", "description", "parameters", "strict"}, "a function has unknown fields")
        _tool(function["name"], function["parameters"], function["strict"])
    _need("stream_options" not in body or body.get("stream"), "stream_options without a stream")
    calls: list[tuple[str, str]] = []
    for message in body["messages"]:
        match message["role"]:
            case "system" | "user":
                _need(isinstance(message["content"], str), "a message has no text")
            case "assistant":
                made = message.get("tool_calls", [])
                _need(isinstance(message["content"], str) or made, "a turn says nothing")
                calls += [("call", call["id"]) for call in made if isinstance(call["function"]["arguments"], str)]
            case "tool":
                _need(isinstance(message["content"], str), "a result is no text")
                calls.append(("output", message["tool_call_id"]))
            case other:
                raise _Refused(f"unknown role {other!r}")
    _answered(calls)


def _messages(seen: Seen) -> None:
    body = seen.body
    _need(
        seen.headers.get("anthropic-version") and body["max_tokens"] > 0, "anthropic-version or max_tokens is missing"
    )
    for cached in (body, *(body["system"] if isinstance(body["system"], list) else [])):
        _need(cached.get("cache_control", {"type": "ephemeral"}) == {"type": "ephemeral"}, "cache_control is none")
    if "output_config" in body:
        form = body["output_config"]["format"]
        _need(set(form) == {"type", "schema"}, "the format has unknown fields")
        _form({"name": "x", "strict": True, **form})
    for tool in body.get("tools", []):
        _need(set(tool) == {"name", "description", "input_schema", "strict"}, "a tool has unknown fields")
        _tool(tool["name"], tool["input_schema"], tool["strict"])
    calls: list[tuple[str, str]] = []
    roles = [message["role"] for message in body["messages"]]
    _need(set(roles) <= {"user", "assistant"} and roles[0] == "user" == roles[-1], "the user speaks first and last")
    for block, role in _blocks(body["messages"]):
        match block["type"], role:
            case "text", _:
                _need(block["text"].strip(), "a text is empty")
            case "tool_use", "assistant":
                _need(isinstance(block["input"], dict), "an input is no object")
                _need(body.get("tools"), "tools must be named where the messages use them")
                calls.append(("call", block["id"]))
            case "tool_result", "user":
                calls.append(("output", block["tool_use_id"]))
            case other:
                raise _Refused(f"unknown block {other!r}")
    _answered(calls)


def _blocks(messages: list[Body]) -> Iterator[tuple[Body, str]]:
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        _need(blocks, "a message is empty")
        yield from ((block, message["role"]) for block in blocks)


def _answered(calls: list[tuple[str, str]]) -> None:
    """Every call has one output, which comes after it."""
    open_calls: set[str] = set()
    for kind, identifier in calls:
        if kind == "call":
            _need(identifier and identifier not in open_calls, "a call has no id of its own")
            open_calls.add(identifier)
        else:
            _need(identifier in open_calls, f"no call has the id {identifier!r}")
            open_calls.remove(identifier)
    _need(not open_calls, f"no output for {sorted(open_calls)}")


def _form(form: Body) -> None:
    strict = form["type"] == "json_schema" and NAME.fullmatch(form["name"]) and form["strict"] is True
    _need(strict, "the format is no strict json_schema with a name")
    _closed(form["schema"])


def _tool(name: str, schema: Body, strict: object) -> None:
    _need(NAME.fullmatch(name) and strict is True, "a tool is not strict or has no name")
    _need(schema.get("type") == "object", "the arguments of a tool are no object")
    _closed(schema)


def _closed(schema: Body) -> None:
    """Strict structured output takes a schema."""
    if loose := set(schema) - KEYWORDS:
        raise _Refused(f"{sorted(loose)} cannot stand in a strict schema")
    if schema.get("type") == "object":
        closed = schema.get("additionalProperties") is False and schema.get("required") == list(schema["properties"])
        _need(closed, "an object is open or a property is not required")
    for part in (*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", [])):
        _closed(part)
    if "items" in schema:
        _closed(schema["items"])
    _need(schema.get("type") != "array" or "items" in schema, "an array has no items")
