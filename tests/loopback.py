"""A server on 127.0.0.1 that speaks the formats of OpenAI (Responses, Chat Completions) and Anthropic (Messages).

It checks requests as strictly as the real services do, answers as its script says, and breaks in the ways that real ones do.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

FORMATS = {"/v1/responses": "responses", "/v1/chat/completions": "chat", "/v1/messages": "messages"}
ALLOWED = {
    "responses": {"model", "instructions", "input", "max_output_tokens", "store", "text"},
    "chat": {"model", "messages", "max_tokens", "response_format"},
    "messages": {"model", "max_tokens", "system", "messages", "output_config"},
}
SOON = {"retry-after-ms": "10"}


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    format: str
    headers: dict[str, str]
    body: dict[str, Any]
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
        made = {"responses": _responses, "chat": _chat, "messages": _messages}[seen.format]
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


def _responses(text: str, stop: str, tokens: tuple[int, int, int] | None) -> dict[str, Any]:
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


def _chat(text: str, stop: str, tokens: tuple[int, int, int] | None) -> dict[str, Any]:
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


def _messages(text: str, stop: str, tokens: tuple[int, int, int] | None) -> dict[str, Any]:
    n_in, cached, n_out = tokens or (0, 0, 0)
    usage = {"input_tokens": n_in - cached, "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}
    reason = {"whole": "end_turn", "cut": "max_tokens", "refusal": "refusal"}[stop]
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}],
        "stop_reason": reason, "stop_sequence": None, "usage": usage | {"output_tokens": n_out},
    }  # fmt: skip


def faults(seen: Seen) -> str:
    """What the real service would refuse in a request; "" where nothing."""
    unknown = set(seen.body) - ALLOWED[seen.format]
    if unknown:
        return f"unknown parameters {sorted(unknown)}"
    match seen.format:
        case "responses":
            form = seen.body["text"]["format"]
        case "chat":
            form = {"type": seen.body["response_format"]["type"], **seen.body["response_format"]["json_schema"]}
        case _:
            form = {"name": "x", "strict": True, **seen.body["output_config"]["format"]}
            if not seen.headers.get("anthropic-version") or not seen.body["max_tokens"] > 0:
                return "anthropic-version or max_tokens is missing"
    if form["type"] != "json_schema" or not form["name"].isidentifier() or form["strict"] is not True:
        return "the format is no strict json_schema with a name"
    return _loose(form["schema"])


def _loose(schema: Any) -> str:
    """Why strict structured output does not take a schema."""
    if isinstance(schema, list):
        return next((fault for one in schema if (fault := _loose(one))), "")
    if not isinstance(schema, dict):
        return ""
    if schema.get("type") == "object" and (
        schema.get("additionalProperties") is not False or schema.get("required") != list(schema["properties"])
    ):
        return "an object is open or a property is not required"
    if refused := {"maxLength", "minLength", "default", "maxItems"} & set(schema):
        return f"{refused} cannot stand in a strict schema"
    return next((fault for one in schema.values() if (fault := _loose(one))), "")


class Loopback:
    """The server, answering with each step of `script` in turn and the last one for ever. Use as a context manager."""

    def __init__(self, *script: Step, key: str = "sk-canary-0123456789") -> None:
        self.script, self.key = list(script), key
        self.requests: list[Seen] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def answer(self, seen: Seen) -> Answer:
        """The script's answer to a request that the real service would take."""
        with self._lock:
            self.requests.append(seen)
            step = self.script[min(len(self.requests), len(self.script)) - 1]
        sent = seen.headers.get("x-api-key") or seen.headers.get("authorization", "").removeprefix("Bearer ")
        if sent != self.key:
            return fails(401, f"Incorrect API key provided: {sent}")(seen)
        if fault := faults(seen):
            return fails(400, fault)(seen)
        return step(seen)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if self.path not in FORMATS:
                    self._send(Answer(b'{"error": {"message": "no such path"}}', 404))
                    return
                self._send(outer.answer(Seen(FORMATS[self.path], headers, json.loads(body))))

            def _send(self, answer: Answer) -> None:
                if answer.wait and outer._closing.wait(answer.wait):
                    return
                self.send_response(answer.status)
                for name, value in ({"content-type": "application/json"} | answer.headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                try:
                    self.wfile.write(answer.content[: answer.keep])
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                if answer.keep is not None:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
