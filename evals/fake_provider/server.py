"""A server on 127.0.0.1 that speaks the formats of OpenAI (Responses, Chat Completions) and Anthropic (Messages).

It checks requests as strictly as the real services do, answers as its script says, and breaks in the ways that real ones do.
"""

import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from neuronaut.evals.fake_provider.checks import why_refused
from neuronaut.evals.fake_provider.script import Answer, Seen, Step, fails

KEY = "sk-canary-0123456789"
FORMATS = {"/v1/responses": "responses", "/v1/chat/completions": "chat", "/v1/messages": "messages"}
Route = Callable[[Seen], Answer | None]


class _Listener(ThreadingHTTPServer):
    """Says nothing about connections that broke, which is what some scripts are for."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Loopback:
    """The server, answering with each step of `script` in turn and the last one for ever. Use as a context manager.

    key: the only one that is taken, None for any. tls: speak HTTPS with this context.
    routes: asked first, for other paths than those of one reply; the first that gives an answer decides.
    aside: gives the step for a request that uses up none of the script, None for others.
    """

    def __init__(
        self,
        *script: Step,
        key: str | None = KEY,
        routes: Sequence[Route] = (),
        aside: Callable[[Seen], Step | None] | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.script, self.key, self.routes = list(script), key, tuple(routes)
        self._aside, self._n_scripted = aside, 0
        self.requests: list[Seen] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Listener(("127.0.0.1", port), type("_OwnHandler", (_Handler,), {"outer": self}))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
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
            step = self._aside(seen) if self._aside else None
            if step is None:
                self._n_scripted += 1
                step = self.script[min(self._n_scripted, len(self.script)) - 1]
        sent = seen.headers.get("x-api-key") or seen.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and sent != self.key:
            return fails(401, f"Incorrect API key provided: {sent}")(seen)
        for route in self.routes:
            if (answer := route(seen)) is not None:
                return answer
        if not seen.format:
            return fails(404, f"no such path: {seen.path}")(seen)
        if fault := why_refused(seen):
            return fails(400, fault)(seen)
        return step(seen)


class _Handler(BaseHTTPRequestHandler):
    """One connection; what is said and when it breaks, the server decides."""

    outer: "Loopback"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait for its head to be acknowledged

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = urlsplit(self.path).path
        seen = Seen(FORMATS.get(path, ""), headers, _object(content), self.command, self.path, content)
        self._send(self.outer.answer(seen))

    do_GET = do_POST

    def _send(self, answer: Answer) -> None:
        if answer.wait and self.outer._closing.wait(answer.wait):
            return
        try:
            self._write(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _write(self, answer: Answer) -> None:
        broken = answer.raw is not None or answer.keep is not None or answer.reset
        self.close_connection = self.close_connection or broken or answer.framing == "close"
        if answer.raw is None:
            self._head(answer)
            self._body(answer)
        else:
            self.wfile.write(answer.raw)
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in ({"content-type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        match answer.framing:
            case "length":
                self.send_header("content-length", str(len(answer.content)))
            case "chunked":
                self.send_header("transfer-encoding", "chunked")
            case "close":
                self.send_header("connection", "close")
        self.end_headers()

    def _body(self, answer: Answer) -> None:
        content, piece = answer.content[: answer.keep], answer.piece or max(1, len(answer.content))
        for at in range(0, len(content), piece):
            if answer.pause and at and self.outer._closing.wait(answer.pause):
                return
            part = content[at : at + piece]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if answer.framing == "chunked" else part)
            self.wfile.flush()
        if answer.framing == "chunked" and answer.keep is None:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
