"""The format of Chat Completions, which vLLM, Ollama, llama.cpp and LM Studio speak too."""

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from neuronaut.agent.llm.base import Call, Heard, LanguageModelError, Reply, Request, Said, schema_of, wire
from neuronaut.agent.llm.counting import Count
from neuronaut.agent.llm.events import cut, events, json_of, malformed, told_error
from neuronaut.agent.llm.schemas import strict_function, strict_schema

STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def body(request: Request, model: str) -> dict[str, Any]:
    """What is sent."""
    asked: dict[str, Any] = {"model": model, "messages": _messages(request), "max_tokens": request.max_tokens}
    if request.reply is not None:
        form = {"name": request.purpose, "schema": strict_schema(schema_of(request)), "strict": True}
        asked["response_format"] = {"type": "json_schema", "json_schema": form}
    if request.tools:
        asked["tools"] = [{"type": "function", "function": strict_function(tool)} for tool in request.tools]
    return asked


def _messages(request: Request) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": request.system},
        {"role": "user", "content": request.prompt},
    ]
    for turn in request.turns:
        if isinstance(turn, Said):
            said: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
            if turn.calls:
                said["tool_calls"] = [
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": readable(call)}}
                    for call in turn.calls
                ]
            messages += [said] if turn.text or turn.calls else []
        else:
            messages += [{"role": "tool", "tool_call_id": call, "content": text} for call, text in turn.results]
            messages += [{"role": "user", "content": turn.text}] if turn.text else []
    return messages


def readable(call: Call) -> str:
    """The arguments of a call as a JSON object, which servers want where they read them again; others stand inside one."""
    try:
        found = json.loads(call.arguments)
    except (ValueError, RecursionError):
        found = None
    return call.arguments if isinstance(found, dict) else json.dumps({"not_an_object": call.arguments})


class _Function(BaseModel):
    name: str = ""
    arguments: str | dict[str, Any] | None = None


class _ToolCall(BaseModel):
    id: str | None = None
    function: _Function
    index: int | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Details(BaseModel):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class _Usage(BaseModel):
    prompt_tokens: Count
    completion_tokens: Count
    prompt_tokens_details: _Details | None = None


class _Completion(BaseModel):
    model: str
    choices: list[_Choice]
    usage: _Usage | None = None


class _DeltaFunction(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _DeltaCall(BaseModel):
    id: str | None = None
    function: _DeltaFunction = _DeltaFunction()
    index: int | None = None


class _Delta(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_DeltaCall] | None = None


class _DeltaChoice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None
    index: int = 0


class _Chunk(BaseModel):
    model: str = ""
    choices: list[_DeltaChoice]
    usage: _Usage | None = None


def reply(content: bytes, name: str) -> Reply:
    """The reply that a body holds. Raises LanguageModelError where it holds none."""
    return _reply(wire(_Completion, content, name), name)


def _reply(found: _Completion, name: str) -> Reply:
    if not found.choices:
        raise LanguageModelError(f"{name} sent a reply without a choice", maybe_billed=True)
    choice, usage = found.choices[0], found.usage
    told = (usage and usage.prompt_tokens_details) or _Details()
    return Reply(
        text=choice.message.content or "",
        model=found.model,
        stop_reason="refusal" if choice.message.refusal else choice.finish_reason or "unknown",
        tokens_in=usage.prompt_tokens if usage else None,
        tokens_cached=told.cached_tokens,
        tokens_out=usage.completion_tokens if usage else None,
        calls=tuple(_call(call, n) for n, call in enumerate(choice.message.tool_calls or [], 1)),
        tokens_written=told.cache_write_tokens,
    )


def _call(call: _ToolCall, n: int) -> Call:
    written = call.function.arguments
    arguments = written if isinstance(written, str) else json.dumps(written or {})
    return Call(call.id or f"call_{n}", call.function.name, arguments)


class _Growing:
    """A reply that is put together from the pieces of a stream."""

    def __init__(self) -> None:
        self.model, self.finish, self.usage = "", None, None  # type: tuple[str, str | None, _Usage | None]
        self.message = _Message()

    def add(self, chunk: _Chunk, heard: Heard) -> None:
        self.model = self.model or chunk.model
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            if choice.index:
                continue  # one reply was asked for
            delta, message = choice.delta, self.message
            self.finish = choice.finish_reason or self.finish
            if delta.content:
                message.content = (message.content or "") + delta.content
                heard(delta.content)
            if delta.refusal:
                message.refusal = (message.refusal or "") + delta.refusal
            for piece in delta.tool_calls or []:
                self._add_call(piece)

    def _add_call(self, piece: _DeltaCall) -> None:
        """A piece goes on with the call at its index; one with another id begins a call, as some servers number all 0."""
        calls = self.message.tool_calls = self.message.tool_calls or []
        going = next((call for call in reversed(calls) if call.index == piece.index), None)
        if going is None or (piece.id and going.id and piece.id != going.id):
            going = _ToolCall(id=piece.id, function=_Function(arguments=""), index=piece.index)
            calls.append(going)
        going.id = going.id or piece.id
        going.function.name = going.function.name or piece.function.name or ""
        going.function.arguments = f"{going.function.arguments or ''}{piece.function.arguments or ''}"


def streamed(chunks: Iterable[bytes], heard: Heard, name: str) -> Reply:
    """The reply that the pieces of a stream make; its words are heard as they come. Raises LanguageModelError where it does not end."""
    growing = _Growing()
    for event in events(chunks, name):
        if event.data.strip() == "[DONE]":
            if growing.finish is None:
                raise malformed(name, "it ends without a finish reason")
            if any(not call.function.name for call in growing.message.tool_calls or []):
                raise malformed(name, "a call has no name")
            choice = _Choice(message=growing.message, finish_reason=growing.finish)
            return _reply(_Completion(model=growing.model, choices=[choice], usage=growing.usage), name)
        found = json_of(event, name)
        if found.get("error"):
            raise told_error(name, found["error"])
        growing.add(wire(_Chunk, event.data.encode("utf-8", "replace"), name), heard)
    raise cut(name)
