"""Replies in the formats of OpenAI (Responses, Chat Completions) and Anthropic (Messages)."""

from typing import Any


def responses(text: str, stop: str, tokens: tuple[int, int, int] | None) -> dict[str, Any]:
    """A response of OpenAI's Responses API. stop: whole, cut or refusal; tokens: in, cached, out, None to leave them out."""
    part = (
        {"type": "refusal", "refusal": text}
        if stop == "refusal"
        else {"type": "output_text", "text": text, "annotations": []}
    )
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]},
    ]
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "output": output,
        "status": "completed",
        "error": None,
    }
    if stop == "cut":
        body |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    if tokens:
        body["usage"] = {
            "input_tokens": tokens[0], "input_tokens_details": {"cached_tokens": tokens[1]}, "output_tokens": tokens[2],
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": tokens[0] + tokens[2],
        }  # fmt: skip
    return body


def chat(text: str, stop: str, tokens: tuple[int, int, int] | None) -> dict[str, Any]:
    """A completion of Chat Completions, alike."""
    message = {"role": "assistant", "content": text}
    if stop == "refusal":
        message = {"role": "assistant", "content": None, "refusal": text}
    choice = {"index": 0, "message": message, "finish_reason": "length" if stop == "cut" else "stop"}
    body: dict[str, Any] = {"id": "c1", "object": "chat.completion", "created": 1, "choices": [choice]}
    if tokens:
        body["usage"] = {
            "prompt_tokens": tokens[0], "completion_tokens": tokens[2], "total_tokens": tokens[0] + tokens[2],
            "prompt_tokens_details": {"cached_tokens": tokens[1]},
        }  # fmt: skip
    return body


def messages(text: str, stop: str, tokens: tuple[int, int, int] | None) -> dict[str, Any]:
    """A message of Anthropic's Messages API, alike."""
    n_in, cached, n_out = tokens or (0, 0, 0)
    usage = {"input_tokens": n_in - cached, "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}
    reason = {"whole": "end_turn", "cut": "max_tokens", "refusal": "refusal"}[stop]
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}],
        "stop_reason": reason, "stop_sequence": None, "usage": usage | {"output_tokens": n_out},
    }  # fmt: skip
