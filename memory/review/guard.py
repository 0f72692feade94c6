"""Whom the pages answer: the browser of the person who started them, and nobody else. Knows nothing about the pages.

An address that was printed carries a token. It is exchanged for a cookie that scripts and other sites cannot use; every
request needs it, a Host that is this server's own, and, where it changes something, an Origin that is.
"""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from html import escape
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_HEADERS = 16 * 1024  # bytes of all headers together; what a browser sends is a tenth
MOST_TARGET = 8 * 1024  # bytes of path and query
MOST_BODY = 64 * 1024  # bytes of a form; a reason or a question is far shorter
BODY_SECONDS = 30.0  # for a whole form
TOKEN = "token"
STATIC = "/static/"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# With no-referrer a form that is sent without scripts would have the Origin `null`; same-origin tells other sites as little.
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SAFE = ("GET", "HEAD")
_OPEN = "open the address that `neuronaut review` printed when it was started"


class Refused(Exception):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def new_token() -> str:
    """256 random bits that fit into an address."""
    return secrets.token_urlsafe(32)


def hosts_of(port: int) -> frozenset[str]:
    """The Host headers with which a browser on this machine may name a loopback server; any other is DNS rebinding."""
    names = ("127.0.0.1", "localhost", "[::1]")
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port == 80 else frozenset())


class Guard:
    """An ASGI application around another that only lets requests of the person who started it through.

    hosts: the Host headers that are its own. token: what an address must carry once, as ?token=…, to get the cookie.
    """

    def __init__(self, app: App, *, hosts: frozenset[str], token: str, cookie: str) -> None:
        self._app, self._hosts, self._cookie, self._token = app, hosts, cookie, token.encode()
        # Cookies are sent to every port of a host: what another server there may see is not the token.
        self._value = hmac.digest(self._token, b"cookie", "sha256").hex().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send, static=scope["path"].startswith(STATIC))
        try:
            self._check(scope)
            if (given := _token_in(scope)) is not None:
                await self._exchange(scope, given, send)
                return
            self._check_cookie(scope)
            body = await _in_time(_body(scope, receive)) if scope["method"] == "POST" else None
        except Refused as refused:
            await _refuse(scope, refused, send)
            return
        await self._app(scope, receive if body is None else _again(body, receive), send)

    def _check(self, scope: Scope) -> None:
        """Refuses a request that no page of this server, no typed address and no followed link makes."""
        host = _one(scope, b"host")
        if host not in self._hosts:
            raise Refused(403, f"This server is not at {host!r}: {_OPEN}." if host else "The request names no Host.")
        if scope["method"] not in (*_SAFE, "POST"):
            raise Refused(405, "Only GET, HEAD and POST are answered.")
        _check_size(scope)
        path = scope["path"]
        if not path.startswith("/") or path.startswith("//") or "\\" in path or not path.isprintable():
            raise Refused(403, "The address is not a path of this server.")
        _check_origin(scope, f"http://{host}")

    def _check_cookie(self, scope: Scope) -> None:
        pairs = [part.strip() for one in _all(scope, b"cookie") for part in one.split(b";")]
        name = self._cookie.encode() + b"="
        if not any(hmac.compare_digest(pair[len(name) :], self._value) for pair in pairs if pair.startswith(name)):
            raise Refused(403, f"These pages answer only the person who started them: {_OPEN}.")

    async def _exchange(self, scope: Scope, given: str, send: Send) -> None:
        """The cookie for the token, and on to the same address without it."""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            raise Refused(403, f"The token of this address is not that of the running server: {_OPEN}.")
        rest = urlencode([(name, value) for name, value in _query(scope) if name != TOKEN])
        place = quote(scope["path"]) + (f"?{rest}" if rest else "")
        cookie = f"{self._cookie}={self._value.decode()}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 303, b"", {"location": place, "set-cookie": cookie})


def _check_size(scope: Scope) -> None:
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
        raise Refused(431, "The headers of the request are too long.")
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_TARGET:
        raise Refused(414, "The address is too long.")


def _check_origin(scope: Scope, own: str) -> None:
    """Refuses what a page of another site asks for; it may link here, which asks for a whole page and changes nothing."""
    origin, site = _one(scope, b"origin"), _one(scope, b"sec-fetch-site")
    safe = scope["method"] in _SAFE
    if origin != own and not (safe and origin is None):
        raise Refused(403, "The request comes from a page of another site.")
    link = _one(scope, b"sec-fetch-mode") == "navigate" and _one(scope, b"sec-fetch-dest") == "document"
    allowed = (None, "same-origin", "none") if safe else (None, "same-origin")
    if site not in allowed and not (safe and link and site in ("same-site", "cross-site")):
        raise Refused(403, "The request was made by another site.")


def _token_in(scope: Scope) -> str | None:
    """The token of the address; of a request that may change something, none is looked for."""
    found = [value for name, value in _query(scope) if name == TOKEN] if scope["method"] == "GET" else []
    if len(found) > 1:
        raise Refused(403, f"The address carries several tokens: {_OPEN}.")
    return found[0] if found else None


def _query(scope: Scope) -> list[tuple[str, str]]:
    try:
        return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise Refused(414, "The address has too many parts.") from None


def _all(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _one(scope: Scope, name: bytes) -> str | None:
    """The value of a header, None without it. Refuses several: two readers could take two of them."""
    values = _all(scope, name)
    if len(values) > 1:
        raise Refused(403, f"The request has several headers {name.decode()}.")
    return values[0].decode("latin-1") if values else None


async def _in_time(body: Awaitable[bytes]) -> bytes:
    """Refuses a body that is sent too slowly."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await body
    except TimeoutError:
        raise Refused(408, "The request was not sent to its end.") from None


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body of a request. Refuses one that is too long before the rest of it is read."""
    too_long = Refused(413, f"At most {MOST_BODY // 1024} kB can be sent.")
    length = _one(scope, b"content-length")
    if length is not None and not (length.isascii() and length.isdigit() and int(length[:20]) <= MOST_BODY):
        raise too_long
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request was not sent to its end.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BODY:
            raise too_long
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once more; then whatever else the server has to say."""
    waiting = [body]

    async def next_message() -> Message:
        return {"type": "http.request", "body": waiting.pop(), "more_body": False} if waiting else await receive()

    return next_message


def _with_headers(send: Send, *, static: bool) -> Send:
    """Sends what is given with the headers of this module, whatever the application set; cross-origin leave is taken out.

    A policy that begins with `sandbox` stays: it is of a document that is cut off from the pages, such as a picture.
    """
    fixed = HEADERS | {"cache-control": "private, no-cache" if static else "no-store"}

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            given: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
            kept = [(name, value) for name, value in given if not _ours(name.lower().decode("latin-1"), value, fixed)]
            theirs = {name.lower().decode("latin-1") for name, _ in kept}
            ours = [(name.encode(), value.encode()) for name, value in fixed.items() if name not in theirs]
            message = {**message, "headers": [*kept, *ours]}
        await send(message)

    return guarded


def _ours(name: str, value: bytes, fixed: dict[str, str]) -> bool:
    if name == "content-security-policy" and value.startswith(b"sandbox;"):
        return False
    return name in fixed or name.startswith("access-control-")


async def _refuse(scope: Scope, refused: Refused, send: Send) -> None:
    again = ""
    if refused.status == 403 and _all(scope, b"sec-fetch-dest") == [b"document"] and _all(scope, b"sec-fetch-site"):
        # A browser holds the cookie back where a link on another site led here; from this page it sends it.
        again = f'<p><a href="{escape(quote(scope["path"]))}">Try again from here</a></p>'
    page = f"<!doctype html><html lang=en><title>Refused</title><p>{escape(str(refused))}</p>{again}</html>\n"
    await _answer(send, refused.status, b"" if scope["method"] == "HEAD" else page.encode("utf-8", "replace"), {})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    shown = {"content-type": "text/html; charset=utf-8", "content-length": str(len(body)), **headers}
    rows = [(name.encode(), value.encode()) for name, value in shown.items()]
    await send({"type": "http.response.start", "status": status, "headers": rows})
    await send({"type": "http.response.body", "body": body})
