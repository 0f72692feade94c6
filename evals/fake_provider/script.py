"""What the server answers: a script is a list of steps, each of which makes the answer to one request."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from neuronaut.evals.fake_provider import formats

SOON = {"retry-after-ms": "10"}


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. format: responses, chat, messages, or "" for another path; body: {} where it is no JSON object."""

    format: str
    headers: dict[str, str]
    body: dict[str, Any]
    method: str = "POST"
    path: str = ""
    content: bytes = b""
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Answer:
    """What is sent back: `content` is cut after `keep` bytes, the first byte waits `wait` seconds."""

    content: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    keep: int | None = None
    wait: float = 0.0


Step = Callable[[Seen], Answer]


def says(
    text: str, *, stop: str = "whole", tokens: tuple[int, int, int] | None = (100, 0, 20), model: str = ""
) -> Step:
    """A reply with `text`. stop: whole, cut or refusal; tokens: in (the cached ones included), cached, out."""

    def step(seen: Seen) -> Answer:
        made = {"responses": formats.responses, "chat": formats.chat, "messages": formats.messages}[seen.format]
        body = made(text, stop, tokens) | {"model": model or seen.body["model"]}
        return Answer(json.dumps(body).encode())

    return step


def fails(status: int, message: str = "no", **headers: str) -> Step:
    """An error in the format of the service."""
    body = json.dumps({"type": "error", "error": {"type": "api_error", "message": message, "code": None}}).encode()
    return lambda _: Answer(body, status, headers or SOON)


def sends(content: bytes, content_type: str = "application/json", **more: Any) -> Step:
    """Any bytes as a success."""
    return lambda _: Answer(content, headers={"content-type": content_type}, **more)
