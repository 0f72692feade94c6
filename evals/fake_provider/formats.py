"""Replies in the formats of OpenAI (Responses, Chat Completions) and Anthropic (Messages)."""

import json
from dataclasses import dataclass
from typing import Any, Literal

Stop = Literal["whole", "cut", "refusal", "filter", "pause", "full"]
Counts = tuple[int, int, int]  # tokens in (the cached ones included), cached, out


@dataclass(frozen=True)
class Spoken:
    """What a reply says, in no format. calls: name and arguments of each, which are JSON where they are no text.

    stop: whole, cut off at the limit, refused, stopped by a filter, paused, or at the end of the context. written: how many of
    the tokens in were written into the cache.
    """

    text: str
    calls: tuple[tuple[str, Any], ...] = ()
    stop: Stop = "whole"
    tokens: Counts | None = (100, 0, 20)
    model: str = "some-model"
    written: int = 0


def responses(spoken: Spoken) -> dict[str, Any]:
    """A response of OpenAI's Responses API."""
    part: dict[str, Any] = {"type": "output_text", "text": spoken.text, "annotations": [], "logprobs": []}
    if spoken.stop == "refusal":
        part = {"type": "refusal", "refusal": spoken.text}
    status = "completed" if spoken.stop in ("whole", "refusal") else "incomplete"
    output: list[dict[str, Any]] = [{"type": "reasoning", "id": "rs_1", "summary": []}]
    if spoken.text or not spoken.calls:
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [part]}
        output.append(message)
    for n, (name, arguments) in enumerate(spoken.calls, 1):
        call = {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}", "status": status}
        output.append(call | {"name": name, "arguments": _written(arguments)})
    body = {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "model": spoken.model,
        "output": output, "incomplete_details": None, "parallel_tool_calls": True, "store": False, "usage": None, "tools": [],
        "tool_choice": "auto",
    }  # fmt: skip
    if status == "incomplete":
        body["incomplete_details"] = {"reason": "content_filter" if spoken.stop == "filter" else "max_output_tokens"}
    if spoken.tokens:
        n_in, cached, n_out = spoken.tokens
        body["usage"] = {
            "input_tokens": n_in, "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": spoken.written},
            "output_tokens": n_out, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": n_in + n_out,
        }  # fmt: skip
    return body


def chat(spoken: Spoken) -> dict[str, Any]:
    """A completion of Chat Completions."""
    message: dict[str, Any] = {"role": "assistant", "content": spoken.text, "refusal": None}
    if spoken.stop == "refusal":
        message = {"role": "assistant", "content": None, "refusal": spoken.text}
    if spoken.calls:
        message["tool_calls"] = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": _written(arguments)}}
            for n, (name, arguments) in enumerate(spoken.calls, 1)
        ]
        message["content"] = spoken.text or None
    ends = {"whole": "tool_calls" if spoken.calls else "stop", "refusal": "stop", "filter": "content_filter"}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ends.get(spoken.stop, "length")}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": spoken.model, "choices": [choice]}
    if spoken.tokens:
        n_in, cached, n_out = spoken.tokens
        body["usage"] = {
            "prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": spoken.written},
        }  # fmt: skip
    return body


def messages(spoken: Spoken) -> dict[str, Any]:
    """A message of Anthropic's Messages API."""
    n_in, cached, n_out = spoken.tokens or (0, 0, 0)
    usage = {"input_tokens": n_in - cached - spoken.written, "cache_read_input_tokens": cached}
    usage["cache_creation_input_tokens"] = spoken.written
    content: list[dict[str, Any]] = [{"type": "text", "text": spoken.text, "citations": None}] if spoken.text else []
    for n, (name, arguments) in enumerate(spoken.calls, 1):
        content.append({"type": "tool_use", "id": f"call_{n}", "name": name, "input": arguments})
    ends = {
        "whole": "tool_use" if spoken.calls else "end_turn", "cut": "max_tokens", "refusal": "refusal", "filter": "refusal",
        "pause": "pause_turn", "full": "model_context_window_exceeded",
    }  # fmt: skip
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": spoken.model, "content": content,
        "stop_reason": ends[spoken.stop], "stop_sequence": None, "usage": usage | {"output_tokens": n_out},
    }  # fmt: skip


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)
