"""Which requests a tool server over HTTP answers: those of programs on this machine that were given its token; no browser's."""

import hmac

from neuronaut.memory.review.guard import App, Receive, Scope, Send, hosts_of


class Bearer:
    """An ASGI application around another: exact Host, no Origin (only browsers send one), and the token in `Authorization`."""

    def __init__(self, app: App, *, port: int, token: str) -> None:
        self._app, self._hosts, self._token = (
            app,
            {host.encode() for host in hosts_of(port)},
            f"Bearer {token}".encode(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if (refused := self._refused(scope)) is None:
            await self._app(scope, receive, send)
            return
        status, sentence = refused
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        headers += [(b"www-authenticate", b"Bearer")] * (status == 401)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": sentence.encode()})

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        def values(name: bytes) -> list[bytes]:
            return [value for key, value in scope["headers"] if key.lower() == name]

        hosts, tokens = values(b"host"), values(b"authorization")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return 403, "This server answers only under its own loopback address.\n"
        if values(b"origin") or values(b"sec-fetch-site"):
            return 403, "This server answers programs, not pages in a browser.\n"
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self._token):
            return 401, "Send the header `Authorization: Bearer TOKEN` with the token that `neuronaut mcp` printed.\n"
        return None
