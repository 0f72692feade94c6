"""A connection to the pages that ends by itself where a request never becomes whole."""

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from neuronaut.memory.review.guard import HEADERS, MOST_TARGET

HEAD_SECONDS = 10.0  # for all headers of a request; a browser sends them in one piece
_LINE = MOST_TARGET + 32  # bytes of a request's first line: the address, the method and the version


class Impatient(H11Protocol):
    """HTTP/1.1 that answers 408 to headers that do not come to their end, however slowly they go on, and 414 to a first line
    that is too long as soon as it is, whole or not."""

    _ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A new connection: its first request is awaited."""
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._forget()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self._forget()
            return
        line, _, _ = self.conn.trailing_data[0].partition(b"\n")
        if len(line) > _LINE:
            self._refuse(414, "The address is too long.")
        elif self._ends is None:
            self._ends = self.loop.call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        self._ends = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(408, "The request was not sent to its end.")
        else:
            self.transport.close()

    def _refuse(self, status: int, sentence: str) -> None:
        self._forget()
        body = f"{sentence}\n".encode()
        headers = {"connection": "close", "content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in (headers | HEADERS | {"cache-control": "no-store"}).items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()

    def _forget(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
