"""The pages of a notebook, asked without a network and without the guard that a person's browser meets."""

import asyncio
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from neuronaut.memory.place import Place


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Pages:
    """The pages of a notebook, asked without a network."""

    def __init__(self, place: Place) -> None:
        from neuronaut.memory.review.app import create_app

        self._app = create_app(place, allow_review=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._cycle = self._app.router.lifespan_context(self._app)
        self._do(self._cycle.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._cycle.__aexit__(kind, error, trace))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def ask(self, target: str, method: str = "GET", body: bytes = b"") -> Answer:
        """The answer to a path with its query, already quoted; an error that the application has answered is not raised."""
        found: Answer = self._do(self._ask(target, method, body))
        return found

    async def _ask(self, target: str, method: str, body: bytes) -> Answer:
        path, _, query = target.partition("?")
        kind = (b"content-type", b"application/x-www-form-urlencoded")
        scope = {"type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": unquote(path), "raw_path": path.encode(),
                 "root_path": "", "query_string": query.encode("ascii"), "headers": [(b"host", b"pages.test"), kind],
                 "server": ("pages.test", 80), "client": ("127.0.0.1", 1)}  # fmt: skip
        sent: list[Any] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return waiting.pop() if waiting else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await self._app(scope, receive, send)
        except Exception:  # raised on after the page that says so
            if not sent:
                raise
        headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(one.get("body", b"") for one in sent[1:]))
