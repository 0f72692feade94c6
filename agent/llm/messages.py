"""The format of Anthropic's Messages API."""

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, field_validator

from neuronaut.agent.llm.base import Call, Heard, Reply, Request, Said, schema_of, wire
from neuronaut.agent.llm.chat_completions import readable
from neuronaut.agent.llm.counting import Count
from neuronaut.agent.llm.events import cut, events, json_of, malformed, text_of, told_error
from neuronaut.agent.llm.schemas import strict_function, strict_schema

CACHED = {"type": "ephemeral"}

STREAMED: dict[str, Any] = {"stream": True}


def body(request: Request, model: str) -> dict[str, Any]:
    """What is sent. No temperature, which newer models refuse.

    Tools and the system prompt are cached, since other requests share them; the rest only in a conversation, which sends it
    again with each turn: to write into the cache costs more than to read past it.
    """
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "system": [{"type": "text", "text": request.system, "cache_control": CACHED}],
        "messages": _messages(request),
    }
    if request.turns or request.tools:
        asked["cache_control"] = CACHED
    if request.reply is not None:
        form = {"type": "json_schema", "schema": strict_schema(schema_of(request))}
        asked["output_config"] = {"format": form}
    if request.tools:
        asked["tools"] = [strict_function(tool, "input_schema") for tool in request.tools]
    return asked


def _messages(request: Request) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": request.prompt}]
    for turn in request.turns:
        blocks: list[dict[str, Any]] = []
        words = [{"type": "text", "text": turn.text}] if turn.text.strip() else []
        if isinstance(turn, Said):
            for call in turn.calls:
                named = {"id": call.id, "name": call.name, "input": json.loads(readable(call))}
                blocks.append({"type": "tool_use", **named})
            blocks = words + blocks
        else:
            for identifier, text in turn.results:
                blocks.append({"type": "tool_result", "tool_use_id": identifier, "content": text})
            blocks += words  # results come first
        if blocks:
            messages.append({"role": "assistant" if isinstance(turn, Said) else "user", "content": blocks})
    return messages


class _Block(BaseModel):
    type: str
    text: str | None = None
    id: str = ""
    name: str = ""
    input: Any = None


class _Usage(BaseModel):
    input_tokens: Count
    output_tokens: Count
    cache_creation_input_tokens: Count = 0
    cache_read_input_tokens: Count = 0

    @field_validator("cache_creation_input_tokens", "cache_read_input_tokens", mode="before")
    @classmethod
    def _none(cls, reported: object) -> object:
        """null is none of them; what is no count stays unknown."""
        return 0 if reported is None else reported


class _Message(BaseModel):
    model: str
    stop_reason: str | None
    content: list[_Block]
    usage: _Usage


def reply(content: bytes, name: str) -> Reply:
    """The reply that a body holds. Raises LanguageModelError where it holds none."""
    return _reply(wire(_Message, content, name))


def _reply(message: _Message) -> Reply:
    usage = message.usage
    cached, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    parts = [part for part in (usage.input_tokens, cached, written) if part is not None]
    return Reply(
        text="".join(block.text or "" for block in message.content if block.type == "text"),
        model=message.model,
        stop_reason=message.stop_reason or "unknown",
        tokens_in=sum(parts) if len(parts) == 3 else None,
        tokens_cached=cached,
        tokens_out=usage.output_tokens,
        calls=tuple(Call(b.id, b.name, _written(b.input)) for b in message.content if b.type == "tool_use"),
        tokens_written=written,
    )


def _written(given: Any) -> str:
    """Arguments as text: a text is what could not be read as JSON."""
    return given if isinstance(given, str) else json.dumps(given)


class _Growing:
    """A message that is put together from the events of a stream, in the order that the format has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.message: dict[str, Any] | None = None
        self._open: dict[int, list[str]] = {}  # pieces of the input, by the index of a block that has not ended

    def add(self, found: dict[str, Any], heard: Heard) -> Reply | None:
        """Take in one event; the reply, where it was the last."""
        kind = text_of(found, "type", self.name)
        if kind == "message_start" and self.message is None:
            self.message = _dict(found, "message", self.name)
            _dict(self.message, "usage", self.name)
            if self.message.get("content") != []:
                raise malformed(self.name, "a message does not begin empty")
            return None
        if self.message is None or kind == "message_start":
            raise malformed(self.name, "a message does not begin once")
        match kind:
            case "content_block_start":
                self._begin(found, heard)
            case "content_block_delta":
                self._go_on(found, heard)
            case "content_block_stop":
                self._end(found)
            case "message_delta":
                self.message |= _dict(found, "delta", self.name)
                told = _dict(found, "usage", self.name)
                self.message["usage"] |= {key: value for key, value in told.items() if value is not None}
            case "message_stop":
                if self._open or not self.message.get("stop_reason"):
                    raise malformed(self.name, "it ends before its last block does")
                return reply(json.dumps(self.message).encode(), self.name)
        return None

    def _begin(self, found: dict[str, Any], heard: Heard) -> None:
        assert self.message is not None
        index, block = found.get("index"), _dict(found, "content_block", self.name)
        if index != len(self.message["content"]) or isinstance(index, bool):
            raise malformed(self.name, "a block has a wrong number")
        self._open[index] = []
        self.message["content"].append(block)
        if block.get("type") == "text" and block.get("text"):
            heard(text_of(block, "text", self.name))

    def _block(self, found: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        index = found.get("index")
        if self.message is None or not isinstance(index, int) or index not in self._open:
            raise malformed(self.name, "an event is about no open block")
        return index, self.message["content"][index]

    def _go_on(self, found: dict[str, Any], heard: Heard) -> None:
        index, block = self._block(found)
        delta = _dict(found, "delta", self.name)
        match delta.get("type"):
            case "text_delta":
                words = text_of(delta, "text", self.name)
                block["text"] = text_of(block, "text", self.name) + words
                if words:
                    heard(words)
            case "input_json_delta":
                self._open[index].append(text_of(delta, "partial_json", self.name))

    def _end(self, found: dict[str, Any]) -> None:
        index, block = self._block(found)
        if written := "".join(self._open.pop(index)):
            try:
                block["input"] = json.loads(written)
            except (ValueError, RecursionError):
                block["input"] = written  # the caller says what is wrong with it


def _dict(body: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    found = body.get(key)
    if not isinstance(found, dict):
        raise malformed(name, f"{key} is no object")
    return found


def streamed(chunks: Iterable[bytes], heard: Heard, name: str) -> Reply:
    """The reply that the events of a stream make; its words are heard as they come. Raises LanguageModelError where it does not end."""
    growing = _Growing(name)
    for event in events(chunks, name):
        found = json_of(event, name)
        if found.get("type") == "error":
            raise told_error(name, found.get("error"))
        if (whole := growing.add(found, heard)) is not None:
            return whole
    raise cut(name)
