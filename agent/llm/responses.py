"""The format of OpenAI's Responses API."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from neuronaut.agent.llm.base import (
    Call,
    Heard,
    LanguageModelError,
    Reply,
    Request,
    Said,
    plain,
    schema_of,
    wire,
)
from neuronaut.agent.llm.counting import Count
from neuronaut.agent.llm.events import cut, events, json_of, malformed, text_of, told_error
from neuronaut.agent.llm.schemas import strict_function, strict_schema

STREAMED: dict[str, Any] = {"stream": True}


def body(request: Request, model: str) -> dict[str, Any]:
    """What is sent. Nothing is stored at the provider.

    Thoughts of earlier turns are not sent back: what is logged is all that was asked, so that a resumed run asks the same and
    the budget counts it; a model that thinks does so anew after a tool call.
    """
    asked: dict[str, Any] = {
        "model": model,
        "instructions": request.system,
        "input": _items(request) if request.turns else request.prompt,
        "max_output_tokens": request.max_tokens,
        "store": False,
    }
    if request.reply is not None:
        form = {"type": "json_schema", "name": request.purpose, "schema": strict_schema(schema_of(request))}
        asked["text"] = {"format": form | {"strict": True}}
    if request.tools:
        asked["tools"] = [{"type": "function", **strict_function(tool)} for tool in request.tools]
    return asked


def _items(request: Request) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [{"role": "user", "content": request.prompt}]
    for turn in request.turns:
        if isinstance(turn, Said):
            items += [{"role": "assistant", "content": turn.text}] if turn.text else []
            for call in turn.calls:
                named = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
                items.append({"type": "function_call", **named})
        else:
            items += [{"type": "function_call_output", "call_id": call, "output": text} for call, text in turn.results]
            items += [{"role": "user", "content": turn.text}] if turn.text else []
    return items


class _Part(BaseModel):
    type: str
    text: str | None = None


class _Item(BaseModel):
    type: str
    content: list[_Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class _Details(BaseModel):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class _Usage(BaseModel):
    input_tokens: Count
    output_tokens: Count
    input_tokens_details: _Details | None = None


class _Incomplete(BaseModel):
    reason: str | None = None


class _Error(BaseModel):
    message: str = ""


class _Response(BaseModel):
    model: str
    status: str
    output: list[_Item]
    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: _Error | None = None


class _Ended(BaseModel):
    response: _Response


def reply(content: bytes, name: str) -> Reply:
    """The reply that a body holds. Raises LanguageModelError where it holds none."""
    return _reply(wire(_Response, content, name), name)


def _reply(found: _Response, name: str) -> Reply:
    if found.status == "failed":
        reason = plain(found.error.message if found.error else "", 300) or "no reason given"
        raise LanguageModelError(f"{name} failed: {reason}", maybe_billed=True)
    parts = [part for item in found.output if item.type == "message" for part in item.content or []]
    refused = any(part.type == "refusal" for part in parts)
    details, usage = found.incomplete_details, found.usage
    told = (usage and usage.input_tokens_details) or _Details()
    why = details.reason if details and details.reason else found.status
    return Reply(
        text="".join(part.text or "" for part in parts if part.type == "output_text"),
        model=found.model,
        stop_reason="refusal" if refused else why,
        tokens_in=usage.input_tokens if usage else None,
        tokens_cached=told.cached_tokens,
        tokens_out=usage.output_tokens if usage else None,
        calls=tuple(Call(i.call_id, i.name, i.arguments) for i in found.output if i.type == "function_call"),
        tokens_written=told.cache_write_tokens,
    )


def streamed(chunks: Iterable[bytes], heard: Heard, name: str) -> Reply:
    """The reply that a stream ends with; its words are heard as they come. Raises LanguageModelError where it does not end."""
    for event in events(chunks, name):
        found = json_of(event, name)
        match text_of(found, "type", name):
            case "response.output_text.delta":
                heard(text_of(found, "delta", name))
            case "response.completed" | "response.incomplete" | "response.failed":
                return _reply(wire(_Ended, event.data.encode("utf-8", "replace"), name).response, name)
            case "error":
                raise told_error(name, found.get("error", found))
            case kind if not kind.startswith("response."):
                raise malformed(name, "an event of no response")
    raise cut(name)
