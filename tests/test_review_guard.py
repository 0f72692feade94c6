"""The pages answer only the person who started them: every row says what is sent and which status comes back."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from neuronaut.memory.review.guard import CSP, MOST_BODY, MOST_HEADERS, MOST_TARGET, Guard, hosts_of, new_token

TOKEN = "t0ken-of-this-start"
COOKIE = "neuronaut_8123"
HOST = "127.0.0.1:8123"
OWN = f"http://{HOST}"
Headers = list[tuple[str, str]]


class Pages:
    """An application that counts what reaches it and sets the headers that a careless one would."""

    def __init__(self, policy: bytes = b"default-src *") -> None:
        self.bodies: list[bytes] = []
        self.policy = policy

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message["more_body"]
        self.bodies.append(body)
        loose = [(b"Access-Control-Allow-Origin", b"*"), (b"cache-control", b"public, max-age=9"), (b"etag", b'"1"'),
                 (b"Content-Security-Policy", self.policy), (b"access-control-allow-credentials", b"true")]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": loose})
        await send({"type": "http.response.body", "body": b"a page"})


class Answer:
    """What one request got."""

    def __init__(self, sent: Sequence[dict[str, Any]]) -> None:
        self.status: int = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.names = [name.decode().lower() for name, _ in sent[0]["headers"]]
        self.body = b"".join(one.get("body", b"") for one in sent[1:])


def request(
    method: str = "GET",
    target: str = "/",
    headers: Headers | None = None,
    *,
    parts: Sequence[bytes] = (b"",),
    pages: Pages | None = None,
) -> Answer:
    """What comes back for exactly these headers."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers or []],
    }  # fmt: skip
    waiting = [{"type": "http.request", "body": part, "more_body": at < len(parts)} for at, part in enumerate(parts, 1)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    guard = Guard(pages or Pages(), hosts=hosts_of(8123), token=TOKEN, cookie=COOKIE)
    asyncio.run(guard(scope, receive, send))
    return Answer(sent)


def cookie_of(token: str = TOKEN) -> str:
    """The cookie that the right token is exchanged for."""
    return request(target=f"/?token={token}", headers=[("host", HOST)]).headers["set-cookie"].partition(";")[0]


GOOD = cookie_of()
LINK = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]


def row(method: str, status: int, target: str = "/r/1", *, host: str | None = HOST, cookie: str | None = GOOD,
        origin: str | None = None, site: str | None = None, more: Headers | None = None) -> tuple[Any, ...]:  # fmt: skip
    """One case of the table: a request, and the status that is right."""
    named = {"host": host, "cookie": cookie, "origin": origin, "sec-fetch-site": site}
    headers = [(name, value) for name, value in named.items() if value is not None]
    return method, target, [*headers, *(more or [])], status


CASES = {
    # The person's own browser
    "a typed address": row("GET", 200, site="none", more=LINK),
    "a link inside": row("GET", 200, site="same-origin", more=LINK),
    "a script of the page reads": row("GET", 200, site="same-origin", more=[("sec-fetch-mode", "cors")]),
    "a script of the page reads and names its origin": row("GET", 200, origin=OWN, site="same-origin"),
    "an old browser": row("GET", 200),
    "the head alone": row("HEAD", 200, site="none"),
    "a form of the page": row("POST", 200, origin=OWN, site="same-origin", more=LINK),
    "a script of the page writes": row("POST", 200, origin=OWN, site="same-origin", more=[("sec-fetch-mode", "cors")]),
    "a form in an old browser": row("POST", 200, origin=OWN),
    "localhost": row("GET", 200, host="localhost:8123", site="none"),
    "a form at localhost": row("POST", 200, host="localhost:8123", origin="http://localhost:8123", site="same-origin"),
    "IPv6": row("GET", 200, host="[::1]:8123", site="none"),
    "a form at IPv6": row("POST", 200, host="[::1]:8123", origin="http://[::1]:8123", site="same-origin"),
    "other cookies beside": row("GET", 200, cookie=f"a=b; {GOOD}; c=d"),
    "a false cookie of another port beside": row("GET", 200, cookie=f"{COOKIE}=x; {GOOD}"),
    "a followed link from elsewhere": row("GET", 200, site="cross-site", more=LINK),
    "a followed link from another port": row("GET", 200, site="same-site", more=LINK),
    # Host
    "no host": row("GET", 403, host=None),
    "another name": row("GET", 403, host="evil.example:8123"),
    "another name that leads here": row("GET", 403, host="127.0.0.1.evil.example:8123"),
    "another port": row("GET", 403, host="127.0.0.1:8124"),
    "no port": row("GET", 403, host="127.0.0.1"),
    "localhost without a port": row("GET", 403, host="localhost"),
    "a name in front": row("GET", 403, host="evil.localhost:8123"),
    "a name behind": row("GET", 403, host="localhost:8123.evil.example"),
    "a user in the host": row("GET", 403, host="127.0.0.1:8123@evil.example"),
    "a user before the host": row("GET", 403, host="evil@127.0.0.1:8123"),
    "a dot behind": row("GET", 403, host="localhost.:8123"),
    "upper case": row("GET", 403, host="LOCALHOST:8123"),
    "another loopback address": row("GET", 403, host="127.0.0.2:8123"),
    "a short address": row("GET", 403, host="127.1:8123"),
    "all addresses": row("GET", 403, host="0.0.0.0:8123"),
    "a number for an address": row("GET", 403, host="2130706433:8123"),
    "a long IPv6 address": row("GET", 403, host="[0:0:0:0:0:0:0:1]:8123"),
    "IPv4 in IPv6": row("GET", 403, host="[::ffff:127.0.0.1]:8123"),
    "an empty host": row("GET", 403, host=""),
    "a list of hosts": row("GET", 403, host=f"{HOST}, evil.example"),
    "a blank behind the host": row("GET", 403, host=f"{HOST} "),
    "two hosts": row("GET", 403, more=[("host", "evil.example")]),
    "the same host twice": row("GET", 403, more=[("host", HOST)]),
    "a forwarded host is not asked": row("GET", 403, host="evil.example", more=[("x-forwarded-host", HOST)]),
    "a rebound name writes": row("POST", 403, host="evil.example:8123", origin="http://evil.example:8123", site="same-origin"),
    # Origin
    "a form of another site": row("POST", 403, origin="http://evil.example", site="cross-site", more=LINK),
    "a form of another site in an old browser": row("POST", 403, origin="http://evil.example"),
    "a form of another port": row("POST", 403, origin="http://127.0.0.1:3000", site="same-site", more=LINK),
    "a form of another port in an old browser": row("POST", 403, origin="http://127.0.0.1:3000"),
    "a form without an origin": row("POST", 403, site="same-origin"),
    "a form without anything": row("POST", 403),
    "a form of a sandboxed frame": row("POST", 403, origin="null", site="cross-site"),
    "a form of a file": row("POST", 403, origin="file://", site="cross-site"),
    "an origin of another scheme": row("POST", 403, origin=f"https://{HOST}", site="same-origin"),
    "an origin with a path": row("POST", 403, origin=f"{OWN}/", site="same-origin"),
    "an origin that begins alike": row("POST", 403, origin=f"{OWN}.evil.example", site="same-origin"),
    "an origin in another case": row("POST", 403, origin=OWN.upper(), site="same-origin"),
    "localhost is another origin than its address": row("POST", 403, origin="http://localhost:8123", site="same-site"),
    "two origins": row("POST", 403, origin=OWN, site="same-origin", more=[("origin", "http://evil.example")]),
    "two origins in one header": row("POST", 403, origin=f"{OWN} http://evil.example", site="same-origin"),
    "an empty origin": row("POST", 403, origin="", site="same-origin"),
    "a referrer is no origin": row("POST", 403, site="same-origin", more=[("referer", f"{OWN}/")]),
    "a script of another site reads": row("GET", 403, origin="http://evil.example", site="cross-site"),
    "a sandboxed frame reads": row("GET", 403, origin="null"),
    # Sec-Fetch
    "another site claims to be none with its form": row("POST", 403, origin=OWN, site="none", more=LINK),
    "a form of our own host that was led here from elsewhere": row("POST", 403, origin=OWN, site="cross-site", more=LINK),
    "a picture in another site": row("GET", 403, site="cross-site", more=[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]),
    "a script in another site": row("GET", 403, site="cross-site", more=[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")]),
    "a frame in another site": row("GET", 403, site="cross-site", more=[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]),
    "an object in another site": row("GET", 403, site="cross-site", more=[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "object")]),
    "a fetch of another port": row("GET", 403, site="same-site", more=[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")]),
    "a frame at another port": row("GET", 403, site="same-site", more=[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "frame")]),
    "another site without mode": row("GET", 403, site="cross-site"),
    "an unknown word": row("GET", 403, site="friendly", more=LINK),
    "an empty word": row("GET", 403, site="", more=LINK),
    "two words": row("GET", 403, site="same-origin", more=[("sec-fetch-site", "cross-site")]),
    "the head for another site": row("HEAD", 403, site="cross-site", more=[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "empty")]),
    # Methods
    **{f"{method} is not answered": row(method, 405, origin=OWN, site="same-origin")
       for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", "")},
    "a preflight of another site": row("OPTIONS", 405, origin="http://evil.example", site="cross-site"),
    # Cookie and token
    "no cookie": row("GET", 403, cookie=None),
    "a form without the cookie": row("POST", 403, cookie=None, origin=OWN, site="same-origin"),
    "an empty cookie": row("GET", 403, cookie=f"{COOKIE}="),
    "a wrong cookie": row("GET", 403, cookie=f"{COOKIE}=guess"),
    "the token as cookie": row("GET", 403, cookie=f"{COOKIE}={TOKEN}"),
    "part of the cookie": row("GET", 403, cookie=GOOD[:-1]),
    "more than the cookie": row("GET", 403, cookie=f"{GOOD}0"),
    "a cookie of another name": row("GET", 403, cookie=GOOD.replace(COOKIE, "neuronaut_8124")),
    "a cookie of a longer name": row("GET", 403, cookie=f"x{GOOD}"),
    "a cookie of an earlier start": row("GET", 403, cookie=f"{COOKIE}={'0' * 64}"),
    "bytes that are no text in the cookie": row("GET", 403, cookie=f"{COOKIE}=\xff\xfe"),
    "the token": row("GET", 303, "/?token=" + TOKEN, cookie=None, site="none", more=LINK),
    "the token at a deep link": row("GET", 303, "/r/1?token=" + TOKEN, cookie=None),
    "the token where a link was followed": row("GET", 303, "/?token=" + TOKEN, cookie=None, site="cross-site", more=LINK),
    "the token in a picture": row("GET", 403, "/?token=" + TOKEN, cookie=None, site="cross-site"),
    "the token at another host": row("GET", 403, "/?token=" + TOKEN, host="evil.example:8123", cookie=None),
    "a wrong token": row("GET", 403, "/?token=guess", cookie=None),
    "a wrong token with the cookie": row("GET", 403, "/?token=guess"),
    "an empty token": row("GET", 403, "/?token=", cookie=None),
    "a token that is no ASCII": row("GET", 403, "/?token=%C3%A9%00", cookie=None),
    "two tokens": row("GET", 403, f"/?token={TOKEN}&token={TOKEN}", cookie=None),
    "the token with HEAD": row("HEAD", 403, "/?token=" + TOKEN, cookie=None),
    "the token instead of a cookie for a form": row("POST", 403, "/?token=" + TOKEN, cookie=None, origin=OWN, site="same-origin"),
    "the token as a bearer": row("GET", 403, cookie=None, more=[("authorization", f"Bearer {TOKEN}")]),
    # Sizes and addresses
    "long headers": row("GET", 431, more=[("x-long", "a" * MOST_HEADERS)]),
    "many headers": row("GET", 431, more=[(f"x-{at}", "a" * 40) for at in range(400)]),
    "a long address": row("GET", 414, "/" + "a" * MOST_TARGET),
    "a long query": row("GET", 414, "/?q=" + "a" * MOST_TARGET),
    "many parts of a query": row("GET", 414, "/?" + "&".join(f"a={at}" for at in range(200))),
    "an address of another server": row("GET", 403, "http://evil.example/"),
    "two slashes": row("GET", 403, "//evil.example/"),
    "a backslash": row("GET", 403, "/\\evil.example"),
    "a line break in the address": row("GET", 403, "/a\r\nset-cookie: x"),
    "NUL in the address": row("GET", 403, "/\0"),
    "no address": row("GET", 403, "*"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_request_gets_the_answer_of_the_table(case: str) -> None:
    method, target, headers, status = CASES[case]
    pages = Pages()
    answer = request(method, target, headers, pages=pages)
    assert answer.status == status, answer.body
    assert len(pages.bodies) == (status == 200), "only what is let through reaches the pages"
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == answer.headers["cross-origin-opener-policy"]
    assert len(answer.names) == len(set(answer.names)), "no header stands there twice"
    assert not [name for name in answer.names if name.startswith("access-control-")]
    assert TOKEN not in repr((answer.headers, answer.body)), "the token is not handed on"
    if method == "HEAD":
        assert answer.body in (b"", b"a page")


def test_the_table_is_large_and_refuses_most_of_it() -> None:
    answers = [status for *_, status in CASES.values()]
    assert len(answers) >= 100
    assert answers.count(403) >= 60


def test_the_exchanged_cookie_is_out_of_reach_of_scripts_and_other_sites() -> None:
    answer = request(target=f"/u/pocket/8.481?a=1&token={TOKEN}&b=x%26y%0d%0a", headers=[("host", HOST)])
    assert answer.headers["location"] == "/u/pocket/8.481?a=1&b=x%26y%0D%0A"
    value, *marks = answer.headers["set-cookie"].split("; ")
    assert value == GOOD
    assert set(marks) == {"HttpOnly", "SameSite=Strict", "Path=/"}


@pytest.mark.parametrize("path", ["/%0d%0aset-cookie: x", "/é", "/a b", "/%2F%2Fevil.example"])
def test_the_redirect_stays_on_this_server(path: str) -> None:
    answer = request(target=f"{path}?token={TOKEN}", headers=[("host", HOST)])
    place = answer.headers["location"]
    assert place.startswith("/")
    assert not place.startswith(("//", "/\\"))
    assert place.isascii()
    assert place.isprintable()


def test_a_refusal_shows_what_was_sent_as_text() -> None:
    answer = request(headers=[("host", "<script>alert(1)</script>")])
    assert b"<script" not in answer.body
    linked = request(target='/"><script>x', headers=[("host", HOST), ("sec-fetch-site", "cross-site"), *LINK])
    assert b"<script" not in linked.body
    assert b'href="/%22%3E%3Cscript%3Ex"' in linked.body, "a followed link is offered again, from our own page"


def test_a_body_reaches_the_pages_whole_and_a_long_one_not_at_all() -> None:
    own = [("host", HOST), ("cookie", GOOD), ("origin", OWN)]
    pages = Pages()
    assert request("POST", headers=own, parts=[b"ver", b"", b"b=agree"], pages=pages).status == 200
    assert request("POST", headers=own, parts=[b"a" * MOST_BODY], pages=pages).status == 200
    assert pages.bodies == [b"verb=agree", b"a" * MOST_BODY]
    assert request("POST", headers=own, parts=[b"a" * MOST_BODY, b"a"]).status == 413
    assert request("POST", headers=[*own, ("content-length", str(MOST_BODY + 1))], parts=[]).status == 413
    for wrong in ("-1", "1e3", "²", "", "9" * 400):
        assert request("POST", headers=[*own, ("content-length", wrong)], parts=[b""]).status == 413


def test_a_body_that_breaks_off_never_reaches_the_pages() -> None:
    pages, sent = Pages(), []

    async def broken() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", HOST.encode()), (b"cookie", GOOD.encode()), (b"origin", OWN.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    guard = Guard(pages, hosts=hosts_of(8123), token=TOKEN, cookie=COOKIE)
    asyncio.run(guard(scope, broken, send))
    assert pages.bodies == []
    assert sent[0]["status"] == 400


def test_a_body_that_never_ends_is_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronaut.memory.review.guard.BODY_SECONDS", 0.05)
    pages, sent = Pages(), []

    async def slow() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", HOST.encode()), (b"cookie", GOOD.encode()), (b"origin", OWN.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    asyncio.run(Guard(pages, hosts=hosts_of(8123), token=TOKEN, cookie=COOKIE)(scope, slow, send))
    assert (pages.bodies, sent[0]["status"]) == ([], 408)


def test_static_files_may_be_kept_but_are_asked_for_again() -> None:
    answer = request(target="/static/review.css", headers=[("host", HOST), ("cookie", GOOD)])
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["etag"] == '"1"'


def test_a_picture_may_be_cut_off_from_the_pages_but_no_policy_be_loosened() -> None:
    own = [("host", HOST), ("cookie", GOOD)]
    alone = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    assert request(headers=own, pages=Pages(alone.encode())).headers["Content-Security-Policy"] == alone
    for loose in (b"default-src *", b"default-src *; sandbox;", b"", b"sandboxed; default-src *"):
        answer = request(headers=own, pages=Pages(loose))
        assert answer.headers["content-security-policy"] == CSP
        assert answer.names.count("content-security-policy") == 1


def test_a_web_socket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    guard = Guard(Pages(), hosts=hosts_of(8123), token=TOKEN, cookie=COOKIE)
    scope = {"type": "websocket", "path": "/", "headers": [(b"host", HOST.encode()), (b"cookie", GOOD.encode())]}
    asyncio.run(guard(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_each_start_has_its_own_token() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert min(len(new_token()) for _ in range(100)) >= 43, "256 bits"


def test_at_port_80_a_browser_names_no_port() -> None:
    assert "localhost" in hosts_of(80)
    assert hosts_of(8123) == {"127.0.0.1:8123", "localhost:8123", "[::1]:8123"}
