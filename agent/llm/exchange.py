"""One request over HTTP, for both SDKs, whose errors have the same names: theirs become ours, and the key is in none."""

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urljoin

from neuronaut.agent.llm.again import again_after, asked_again
from neuronaut.agent.llm.base import (
    SECRET,
    Call,
    Heard,
    LanguageModelError,
    Reply,
    Request,
    address,
    broken_connection,
    hidden,
    http_failure,
    plain,
    said,
    timed_out,
)
from neuronaut.agent.llm.events import Hiding
from neuronaut.tools.errors import UserError

MAX_BODY = 64_000_000  # bytes, far more than the events of any reply

Chunks = Iterator[bytes]
Opened = Callable[[], AbstractContextManager[Any]]  # a response of an SDK whose body was not read yet
_ABOUT_REPLIES = ("response_format", "json_schema", "json schema", "output_config", "structured output", "grammar")
_ABOUT_TOOLS = ("tool",)


def certificates() -> ssl.SSLContext:
    """Those that both SDKs trust, read once: it takes longer than a short request, and each request has a client of its own."""
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _certificates(*_named: str | None) -> ssl.SSLContext:
    import httpx2

    return httpx2.create_ssl_context()


@dataclass(frozen=True)
class Server:
    """A server that an SDK talks to. name: as on the command line; source: its address, as it may be shown."""

    sdk: ModuleType
    name: str
    source: str
    key_variable: str
    key: str
    timeout: float

    def tell(
        self, create: Callable[..., Any], form: "Format", request: Request, model: str, heard: Heard | None
    ) -> Reply:
        """The reply to a request in the format of a service; `create` is the SDK's method that opens its endpoint."""
        body = sendable(form.body(request, model)) | (form.STREAMED if heard is not None else {})
        return self.ask(
            lambda: create(**body),
            lambda content: form.reply(content, self.name),
            lambda chunks, heard: form.streamed(chunks, heard, self.name),
            heard,
        )

    def ask(
        self,
        opened: Opened,
        whole: Callable[[bytes], Reply],
        streamed: Callable[[Chunks, Heard], Reply],
        heard: Heard | None,
    ) -> Reply:
        """The reply that one POST brings, asked for again while nothing can have been paid. Raises LanguageModelError or UserError."""
        hiding = None if heard is None else Hiding(heard, self.key if len(self.key) >= SECRET else "\0")
        reply = asked_again(lambda attempt: self._once(opened, whole, streamed, hiding, attempt))
        if hiding:
            hiding.end()
        calls = (Call(*map(self._hidden, (call.id, call.name, call.arguments))) for call in reply.calls)
        text, model, why = map(self._hidden, (reply.text, reply.model, reply.stop_reason))
        return replace(reply, text=text, model=model, stop_reason=why, calls=tuple(calls))

    def _hidden(self, text: str) -> str:
        return hidden(text, self.key)

    def _once(
        self,
        opened: Opened,
        whole: Callable[[bytes], Reply],
        streamed: Callable[[Chunks, Heard], Reply],
        heard: Hiding | None,
        attempt: int,
    ) -> Reply:
        for logger in (
            "httpcore2.http11",
            f"{self.sdk.__name__}._base_client",
        ):  # they log headers, which may hold the key
            logging.getLogger(logger).setLevel(logging.INFO)
        import httpx2  # what both SDKs speak HTTP with; where they read a body it is its errors that come

        try:
            with opened() as response:
                chunks = self._chunks(response.iter_bytes(), time.monotonic() + self.timeout)
                if heard is not None and "event-stream" in response.headers.get("content-type", ""):
                    return streamed(chunks, heard)
                reply = whole(b"".join(chunks))
                if heard is not None:  # a server that cannot stream
                    heard(reply.text)
                return reply
        except self.sdk.APIStatusError as error:
            reason = self._hidden(said(error.body, error.message))
            if to := _redirected(error.response, self.source):
                raise self._elsewhere(error.status_code, to) from None
            wait = again_after(error.status_code, error.response.headers, attempt)
            raise self._refused(error.status_code, reason, wait) from None
        except LanguageModelError as error:
            raise self._retold(error) from None
        except (self.sdk.APITimeoutError, httpx2.TimeoutException) as error:
            if "ConnectTimeout" in (type(error).__name__, type(error.__cause__).__name__):
                raise broken_connection(self.name, self.source, error.__cause__ or error) from None
            raise timed_out(self.name, self.timeout) from None
        except (self.sdk.APIError, httpx2.RequestError) as error:
            raise self._unconnected(error) from None

    def _chunks(self, chunks: Chunks, until: float) -> Chunks:
        """The pieces of a body. Refuses one that goes on for too long, in seconds or in bytes."""
        n = 0
        for chunk in chunks:
            n += len(chunk)
            if time.monotonic() > until:
                raise timed_out(self.name, self.timeout)
            if n > MAX_BODY:
                raise LanguageModelError(f"{self.name} sent more than {MAX_BODY:,} bytes", maybe_billed=True)
            yield chunk

    def _retold(self, error: LanguageModelError) -> LanguageModelError:
        return LanguageModelError(
            self._hidden(str(error)), maybe_billed=error.maybe_billed, again_after=error.again_after
        )

    def _elsewhere(self, status: int, to: str) -> LanguageModelError:
        """The error for a redirection, which could hand text and key to anyone."""
        return LanguageModelError(
            f"{self.name} at {self.source} redirects to {plain(self._hidden(to), 200)} (HTTP {status}), which is not followed: "
            "if that is where text should go, give that address as --base-url"
        )

    def _refused(self, status: int, reason: str, wait: float | None) -> LanguageModelError | UserError:
        """The error for an HTTP status; older local servers know no JSON schema, or no tools."""
        said_low = reason.lower()
        for words, what in ((_ABOUT_REPLIES, "replies in a JSON schema"), (_ABOUT_TOOLS, "tools")):
            if status in (400, 422, 500, 501) and any(word in said_low for word in words):
                return LanguageModelError(
                    f"{self.name} may know no {what}, which are needed (HTTP {status}): start another model or a newer "
                    f"server. It said: {plain(reason, 300)}"
                )
        return http_failure(self.name, status, reason, self.key_variable, wait)

    def _unconnected(self, error: Exception) -> LanguageModelError:
        """The error for a server that cannot be reached, is not the one it should be, or broke off."""
        found: BaseException | None = error
        while found is not None:
            if isinstance(found, ssl.SSLError):
                reason = getattr(found, "verify_message", "") or found.reason or "TLS failed"
                return LanguageModelError(
                    f"{self.name} cannot be reached safely at {self.source} ({plain(str(reason), 100)}): check that address, "
                    "and which certificates this machine trusts"
                )
            found = found.__cause__ or found.__context__
        return broken_connection(self.name, self.source, error.__cause__ or error)


def _redirected(response: Any, source: str) -> str:
    """The address that a redirection names, as --base-url takes it and without secrets; "" where there is none."""
    location = response.headers.get("location", "") if 300 <= response.status_code < 400 else ""
    asked = str(response.request.url)
    try:
        to = address(urljoin(asked, location)) if location else ""
    except ValueError:  # no address
        return ""
    return to.removesuffix(address(asked).removeprefix(source.rstrip("/")))


class Format(Protocol):
    """What a module for one format of requests and replies holds."""

    STREAMED: dict[str, Any]

    def body(self, request: Request, model: str) -> dict[str, Any]:
        """What is sent."""
        ...

    def reply(self, content: bytes, name: str) -> Reply:
        """The reply that a body holds."""
        ...

    def streamed(self, chunks: Iterable[bytes], heard: Heard, name: str) -> Reply:
        """The reply that a stream ends with."""
        ...


def sendable(body: Any) -> Any:
    """The body with every half of a surrogate pair, which no server takes, replaced."""
    match body:
        case str():
            return body.encode("utf-8", "replace").decode()
        case dict():
            return {key: sendable(value) for key, value in body.items()}
        case list():
            return [sendable(one) for one in body]
    return body
