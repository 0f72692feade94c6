"""What the server answers: a script is a list of steps, each of which makes the answer to one request."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from neuronaut.evals.fake_provider import formats, streams
from neuronaut.evals.fake_provider.formats import Counts, Spoken, Stop

SOON = {"retry-after-ms": "10"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
Framing = Literal["length", "chunked", "close"]


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
    """What is sent back, in writes of `piece` bytes with `pause` seconds between them; the first waits `wait` seconds.

    keep: cut off after so many bytes of `content`; framing: how the end of the content is told, "close" by nothing else;
    raw: sent instead of an HTTP answer; reset: the connection is reset instead of closed.
    """

    content: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    keep: int | None = None
    wait: float = 0.0
    piece: int | None = None
    pause: float = 0.0
    framing: Framing = "length"
    raw: bytes | None = None
    reset: bool = False


Step = Callable[[Seen], Answer]


def says(
    text: str = "",
    *,
    calls: Iterable[tuple[str, Any]] = (),
    stop: Stop = "whole",
    tokens: Counts | None = (100, 0, 20),
    model: str = "",
    written: int = 0,
    **sent: Any,
) -> Step:
    """A reply, in the format of the request, as a stream where it asks for one. sent: how, as fields of Answer."""

    def step(seen: Seen) -> Answer:
        spoken = Spoken(text, tuple(calls), stop, tokens, model or str(seen.body["model"]), written)
        if seen.body.get("stream"):
            content = streams.encoded(stream_of(seen, spoken))
            return Answer(content, headers=EVENTS, **{"framing": "chunked"} | sent)
        return Answer(json.dumps(body_of(seen, spoken)).encode(), **sent)

    return step


def body_of(seen: Seen, spoken: Spoken) -> dict[str, Any]:
    """The body of a reply in the format of a request."""
    return {"responses": formats.responses, "chat": formats.chat, "messages": formats.messages}[seen.format](spoken)


def stream_of(seen: Seen, spoken: Spoken) -> list[streams.Sent]:
    """The events of a reply in the format of a request."""
    body = body_of(seen, spoken)
    match seen.format:
        case "responses":
            return streams.responses(body)
        case "chat":
            return streams.chat(body, with_usage=bool(seen.body.get("stream_options", {}).get("include_usage")))
    return streams.messages(body)


def fails(status: int, message: str = "no", **headers: str) -> Step:
    """An error in the format of the service."""
    body = json.dumps({"type": "error", "error": {"type": "api_error", "message": message, "code": None}}).encode()
    return lambda _: Answer(body, status, headers or SOON)


def sends(content: bytes, content_type: str = "application/json", **more: Any) -> Step:
    """Any bytes as a success."""
    return lambda _: Answer(content, headers={"content-type": content_type}, **more)
