"""The same replies as server-sent events, in the order and with the fields that the real services send.

Sources: the event types of the openai and anthropic SDKs, and https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

PIECE = 7  # characters of a delta
Sent = tuple[str, Any]  # the name of an event, "" for none, and its data


def encoded(events: Iterable[Sent]) -> bytes:
    """Events as bytes; data that is a text stands as it is."""
    lines = []
    for name, data in events:
        written = data if isinstance(data, str) else json.dumps(data)
        lines.append((f"event: {name}\n" if name else "") + f"data: {written}\n\n")
    return "".join(lines).encode()


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + PIECE] for at in range(0, len(text), PIECE))


def responses(body: dict[str, Any]) -> list[Sent]:
    """The events of a response, each with its number."""
    begun = body | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(body["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty = item | {"status": "in_progress"} | ({"content": []} if item["type"] == "message" else {})
        if item["type"] == "function_call":
            empty |= {"arguments": ""}
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        if item["type"] == "message":
            events += _message_events(item["content"][0], place | {"content_index": 0})
        if item["type"] == "function_call":
            kind = "response.function_call_arguments"
            events += [{"type": f"{kind}.delta", **place, "delta": piece} for piece in _pieces(item["arguments"])]
            events.append({"type": f"{kind}.done", **place, "arguments": item["arguments"], "name": item["name"]})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{body['status']}", "response": body})
    return [(event["type"], event | {"sequence_number": n}) for n, event in enumerate(events)]


def _message_events(part: dict[str, Any], place: dict[str, Any]) -> list[dict[str, Any]]:
    kind, text = ("refusal", part["refusal"]) if part["type"] == "refusal" else ("output_text", part["text"])
    key = "refusal" if kind == "refusal" else "text"
    more: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
    return [
        {"type": "response.content_part.added", **place, "part": part | {key: ""}},
        *({"type": f"response.{kind}.delta", **place, "delta": piece, **more} for piece in _pieces(text)),
        {"type": f"response.{kind}.done", **place, key: text, **more},
        {"type": "response.content_part.done", **place, "part": part},
    ]


def chat(body: dict[str, Any], *, with_usage: bool) -> list[Sent]:
    """The chunks of a completion; the counts come in one of their own, where they are asked for."""
    choice = body["choices"][0]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": piece} for piece in _pieces(message["content"] or "")]
    deltas += [{"refusal": piece} for piece in _pieces(message.get("refusal") or "")]
    for index, call in enumerate(message.get("tool_calls", [])):
        function = call["function"]
        begun = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in _pieces(function["arguments"])
        ]
    frame = {key: body[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    frame |= {"usage": None} if with_usage else {}
    chunks = [frame | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(frame | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if with_usage:
        chunks.append(frame | {"choices": [], "usage": body.get("usage")})
    return [("", chunk) for chunk in chunks] + [("", "[DONE]")]


def messages(body: dict[str, Any]) -> list[Sent]:
    """The events of a message, with a ping after the first block began."""
    usage = body["usage"]
    begun = body | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(body["content"]):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            events.append({"type": "ping"})
        for delta in _deltas(block):
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": body["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage["output_tokens"]}})
    events.append({"type": "message_stop"})
    return [(event["type"], event) for event in events]


def _deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "text":
        return [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
    given = block["input"]
    written = given if isinstance(given, str) else json.dumps(given)
    pieces = ["", *_pieces(written)]  # the first is empty, as the real ones are
    return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
