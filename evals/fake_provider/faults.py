"""What can go wrong between a program and a service over HTTP, each with what the program should make of it."""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal

from neuronaut.evals.fake_provider.script import SOON, Answer, Seen, Step, fails, says, sends

# reply: it came in the end. refused: nothing was paid for. lost: a reply may have been paid for. user: only the user can mend it;
# key: likewise, and it is the key.
Outcome = Literal["reply", "refused", "lost", "user", "key"]
Address = Literal["closed port", "no TLS", "no cipher", "unknown certificate", "no such host"]
DOUBLING = (1.0, 2.0, 4.0, 8.0)  # seconds, where the service does not say how long to wait
LATER = 20  # seconds until a date in a header


@dataclass(frozen=True)
class Fault:
    """The answers to one request, which the last of them goes on giving, or what is wrong with the address.

    waits: the seconds between the calls; () where there is one call only. key: the service answers with the key in its words.
    """

    name: str
    outcome: Outcome
    steps: tuple[Step, ...] = ()
    waits: tuple[float, ...] = ()
    address: Address | None = None


def all_faults(key: str) -> list[Fault]:
    """Every fault once, with names of their own."""
    return [*_waits(), *_statuses(), *_bodies(key), *_passing(), *_broken(), *_strange(), *_addresses()]


def _waits() -> Iterator[Fault]:
    """429 with every form of Retry-After."""

    forms: dict[str, tuple[Mapping[str, str], float | None]] = {
        "seconds": ({"retry-after": "7"}, 7), "no seconds": ({"retry-after": "0"}, 0), "half a second": ({"retry-after": "0.5"}, 0.5),
        "a minute": ({"retry-after": "60"}, 60), "more than a minute": ({"retry-after": "61"}, None),
        "an hour": ({"retry-after": "3600"}, None), "less than nothing": ({"retry-after": "-5"}, 0),
        "for ever": ({"retry-after": "inf"}, None), "a thousand": ({"retry-after": "1e3"}, None),
        "many digits": ({"retry-after": "9" * 400}, None), "spaces": ({"retry-after": "  7  "}, 7),
        "milliseconds": ({"retry-after-ms": "250"}, 0.25), "both": ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        "wrong milliseconds": ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        "a date before": ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        "a date far off": ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, None),
        "an old kind of date": ({"retry-after": "Sunday, 06-Nov-94 08:49:37 GMT"}, 0),
        "a date of C": ({"retry-after": "Sun Nov  6 08:49:37 1994"}, 0),
    }  # fmt: skip
    for name, (headers, wait) in forms.items():
        yield Fault(
            f"429, wait: {name}", "refused", (fails(429, "slow", **headers),), () if wait is None else (wait,) * 4
        )
    yield Fault("429, wait: a date soon", "refused", (_until,), (LATER,) * 4)
    for text in ("", "soon", "nan", "7, 8", "0x10", "Wed, 99 Foo 2099 07:28:00 GMT", "-", "1_0s"):
        step = fails(429, "slow", **{"retry-after": text})
        yield Fault(f"429, wait: {text!r}", "refused", (step,), DOUBLING)
    yield Fault("429, no wait said", "refused", (fails(429, "slow", **{"x-none": "1"}),), DOUBLING)


def _gives(answer: Answer) -> Step:
    return lambda _: answer


def _until(seen: Seen) -> Answer:
    """The service is there again after some seconds."""
    until = datetime.now(UTC) + timedelta(seconds=LATER)
    return fails(429, "slow", **{"retry-after": format_datetime(until, usegmt=True)})(seen)


def _statuses() -> Iterator[Fault]:
    for status in (408, 409, 429, 500, 502, 503, 504, 529):
        yield Fault(f"{status} for ever", "refused", (fails(status),), (0.01,) * 4)
    for status in (400, 402, 405, 406, 410, 413, 415, 418, 422, 431, 451, 300, 301, 302, 303, 307, 308):
        headers = {"location": "http://127.0.0.1:9/v1"} if status < 400 else SOON
        yield Fault(f"{status}", "refused", (fails(status, "no", **headers),))
    yield Fault("401", "key", (fails(401),))
    yield Fault("403", "key", (fails(403),))
    yield Fault("404", "user", (fails(404),))


def _bodies(key: str) -> Iterator[Fault]:
    """Errors that are told in other forms than those of the services."""
    deep, echo = b"[" * 50_000, json.dumps({"error": {"message": f"bad key {key}", "code": 7}})
    contents: dict[str, bytes] = {
        "HTML": b"<html><h1>Bad gateway</h1></html>", "nothing": b"", "no UTF-8": b"\xff\xfe\x00", "a list": b"[1]", "deep": deep,
        "the key": echo.encode(), "the key as text": key.encode(), "half of it": b'{"error": {"mess', "a number": b'{"error": 7}',
        "control characters": b'{"error": {"message": "\\u001b[31m\\u202ered\\n\\n"}}', "much": b"x" * 3_000_000,
    }  # fmt: skip
    for name, content in contents.items():
        yield Fault(f"400 with {name}", "refused", (_gives(Answer(content, 400)),))
        yield Fault(f"503 with {name}", "refused", (_gives(Answer(content, 503, SOON)),), (0.01,) * 4)


def _passing() -> Iterator[Fault]:
    good = says("a reply")
    for n in (1, 2, 4):
        for status in (429, 500):
            yield Fault(f"{n} times {status}", "reply", (*(fails(status),) * n, good), (0.01,) * n)
    yield Fault("429, then 401", "key", (fails(429), fails(401)), (0.01,))
    yield Fault("500, then 400", "refused", (fails(500), fails(400)), (0.01,))
    yield Fault("529, then cut", "lost", (fails(529), says("a reply", keep=30)), (0.01,))


def _broken() -> Iterator[Fault]:
    """Connections that break after the request was sent, and answers that are no HTTP."""
    raws = {
        "nothing": b"", "no HTTP": b"hello\r\n\r\n", "no status": b"HTTP/1.1 abc\r\n\r\n", "half a head": b"HTTP/1.1 200 OK\r\ncontent-",
        "a long header": b"HTTP/1.1 200 OK\r\nx: " + b"x" * 1_000_000 + b"\r\n\r\n", "another version": b"HTTP/9.9 200 OK\r\n\r\n",
        "a wrong piece": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        "a wrong length": b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n{}",
        "no gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        "half a gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n" + gzip.compress(b"{}" * 99)[:20],
    }  # fmt: skip
    for name, raw in raws.items():
        yield Fault(f"sends {name}", "lost", (_gives(Answer(b"", raw=raw)),))
    yield Fault("resets", "lost", (lambda _: Answer(b"", raw=b"", reset=True),))
    yield Fault("resets in a reply", "lost", (says("a reply", keep=40, reset=True),))
    yield Fault("cuts a reply", "lost", (says("a reply", keep=40),))
    yield Fault("cuts an error", "lost", (lambda _: Answer(b'{"error": "no such thing"}', 400, keep=5),))
    yield Fault("says nothing for long", "lost", (says("a reply", wait=5.0),))
    yield Fault("stops in a reply", "lost", (says("a reply", piece=40, pause=5.0),))
    yield Fault("drips", "lost", (says("a reply " * 9, piece=3, pause=0.03),))


def _strange() -> Iterator[Fault]:
    """Successes that hold no reply."""
    contents: dict[str, bytes] = {
        "HTML": b"<html>Log in</html>", "nothing": b"", "null": b"null", "a list": b"[]", "an object": b"{}", "half of it": b'{"model": "m", "o',
        "wrong types": b'{"model": 3, "choices": "no", "output": {}, "content": 7, "status": []}', "deep": b"[" * 50_000,
        "half a surrogate pair": b'{"model": "\\ud800", "choices": [], "output": [], "content": [], "status": "completed"}',
    }  # fmt: skip
    for name, content in contents.items():
        yield Fault(f"200 with {name}", "lost", (sends(content),))
        yield Fault(f"200 with events of {name}", "lost", (sends(b"data: " + content + b"\n\n", "text/event-stream"),))
    yield Fault("204", "lost", (lambda _: Answer(b"", 204),))
    yield Fault("a reply that is not whole", "lost", (says("a reply", stop="cut"),))
    yield Fault("a refusal", "lost", (says("I will not", stop="refusal"),))
    yield Fault("a filtered reply", "lost", (says("a reply", stop="filter"),))


def _addresses() -> Iterator[Fault]:
    yield Fault("closed port", "refused", (), (0.5,) * 4, "closed port")
    yield Fault("no such host", "refused", (), (0.5,) * 4, "no such host")
    yield Fault("no TLS", "refused", (), (), "no TLS")
    yield Fault("no cipher in common", "refused", (), (), "no cipher")
    yield Fault("unknown certificate", "refused", (), (), "unknown certificate")
