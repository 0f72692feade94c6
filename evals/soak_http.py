"""HTTP faults, and streams cut at every byte, in three formats: the right class of error, few calls, the budget kept, no key."""

import contextlib
import os
import random
import socket
import ssl
import subprocess
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from neuronaut.agent.config import Budget as Limits
from neuronaut.agent.config import parse_llm
from neuronaut.agent.llm.base import KeyRefused, LanguageModel, Offered, Reply, Request
from neuronaut.agent.llm.budget import Budget
from neuronaut.agent.llm.gateway import Gateway, NoReply
from neuronaut.agent.llm.prices import Price, Prices
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.evals.fake_provider.faults import LATER, Address, Fault, all_faults
from neuronaut.evals.fake_provider.formats import Spoken
from neuronaut.evals.fake_provider.script import EVENTS, Answer, Framing, Seen, Step, says, stream_of
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.evals.fake_provider.streams import encoded
from neuronaut.evals.soak import Experiment, Result
from neuronaut.tools.errors import UserError

KEY = "sk-canary-0123456789"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY")
PROVIDERS = ("openai", "anthropic", "compatible")
FORMATS = {"openai": "responses", "anthropic": "messages", "compatible": "chat"}
MOST_CALLS = 5
SECONDS = 0.3  # that a reply may take
LIMIT = 3_000  # tokens of the budget
TEXT = 'It says: "nine ≥ eight" 🙂\n\tand goes.'
CALLS = (("look", {"word": "nine ≥", "n": 3}), ("look", {"word": "", "n": -1}))
TOOL = Offered(
    "look", "Looks.", {"type": "object", "properties": {"word": {"type": "string"}, "n": {"type": "integer"}}}
)
REQUEST = Request("talk", "the system prompt", "the prompt", max_tokens=1_000, tools=(TOOL,))


@dataclass
class Log:
    """The rows of calls, kept in memory."""

    ends: list[dict[str, Any]] = field(default_factory=list)

    def begin_call(
        self, purpose: str, model: LanguageModel, request: Any, request_sha256: str, about: Any = None
    ) -> str:
        """A call begins."""
        return str(len(self.ends))

    def end_call(self, call: str, **end: Any) -> None:
        """A call ends."""
        self.ends.append(end)

    def earlier_reply(self, request_sha256: str) -> Reply | None:
        """None: each case asks anew."""
        return None

    def say(self, line: str) -> None:
        """Nothing is shown."""


@dataclass
class Asked:
    """What came of one request: a reply, or an error; what was heard, logged, waited and spent."""

    reply: Reply | None
    error: Exception | None
    heard: str
    log: Log
    waits: list[float]
    spent: int

    @property
    def outcome(self) -> str:
        """As faults name it; refusals and cut replies were paid for, and are lost."""
        if self.reply is not None:
            return "reply"
        if isinstance(self.error, UserError):
            return "key" if isinstance(self.error, KeyRefused) else "user"
        (end,) = self.log.ends
        return "refused" if end["usd_micro"] == 0 else "lost"

    def told(self) -> str:
        """All words that could be shown or stored."""
        error = "".join(traceback.format_exception(self.error)) if self.error else ""
        return "\n".join([error, self.heard, *map(str, self.log.ends)])


@contextlib.contextmanager
def keys() -> Iterator[None]:
    """The key is in the environment for a while, and no proxy is asked."""
    with mock.patch.dict(os.environ, dict.fromkeys(KEYS, KEY) | {"NO_PROXY": "*"}):
        yield


def ask(provider: str, base_url: str, *, streamed: bool) -> Asked:
    """One request through the gateway. Waits are noted and not waited for."""
    url = base_url if provider == "anthropic" else f"{base_url}/v1"
    model = open_language_model(parse_llm(f"{provider}:some-model"), url, SECONDS)
    budget = Budget(Prices("2026", {"some-model": Price(10, 1, 100)}), run=Limits(tokens=LIMIT))
    log, heard, waits = Log(), [], []  # type: ignore[var-annotated]
    asked = Asked(None, None, "", log, waits, 0)
    with mock.patch("neuronaut.agent.llm.again.time.sleep", waits.append):
        try:
            asked.reply = Gateway(model, log, budget).converse(REQUEST, heard.append if streamed else None)
        except (NoReply, UserError) as error:
            asked.error = error
    asked.heard, asked.spent = "".join(heard), budget.total.tokens
    return asked


# HTTP faults


def cases() -> list[tuple[Fault, str, bool]]:
    """Every fault in every format, streamed and not."""
    faults = all_faults(KEY)
    return [(fault, provider, streamed) for fault in faults for provider in PROVIDERS for streamed in (False, True)]


def run_faults(seed: int, n: int) -> Result:
    """So many of the HTTP faults, drawn without repeats."""
    result = Result()
    with keys(), tempfile.TemporaryDirectory() as folder:
        for fault, provider, streamed in random.Random(seed).sample(cases(), n):
            with _at(fault, Path(folder)) as (url, server):
                if url is None:
                    result.outcomes[f"not run: {fault.name} needs the openssl command"] += 1
                    continue
                asked = ask(provider, url, streamed=streamed)
                n_calls = len(server.requests) if server else len(asked.waits) + 1
            result.outcomes[asked.outcome] += 1
            for wrong in _wrong(fault, asked, n_calls, server is not None):
                result.failures.append(f"{fault.name}, {provider}{', streamed' * streamed}: {wrong}")
    return result


def _wrong(fault: Fault, asked: Asked, n_calls: int, counted: bool) -> Iterator[str]:
    """What is not as it must be."""
    if asked.outcome != fault.outcome:
        yield f"{asked.outcome}, not {fault.outcome}: {asked.error}"
    expected = len(fault.waits) + 1
    if n_calls != expected or n_calls > MOST_CALLS:
        yield f"{n_calls} calls, not {expected}"
    if not _as_long(asked.waits, fault.waits):
        yield f"waited {asked.waits}, not {fault.waits}"
    if KEY in asked.told():
        yield "the key is told"
    if asked.spent > LIMIT or (asked.outcome in ("refused", "user", "key")) != (asked.spent == 0):
        yield f"{asked.spent} tokens are counted"
    if asked.error and (len(str(asked.error)) > 700 or not str(asked.error).isprintable()):
        yield "the message is not one short line"


def _as_long(waits: list[float], expected: tuple[float, ...]) -> bool:
    """A date in whole seconds is up to one second nearer, and a little more when it is read."""
    return len(waits) == len(expected) and all(
        want - 2 <= had <= want if want == LATER else abs(had - want) < 1e-9
        for had, want in zip(waits, expected, strict=True)
    )


@contextlib.contextmanager
def _at(fault: Fault, folder: Path) -> Iterator[tuple[str | None, Loopback | None]]:
    """The address at which a fault is met, and the server where one speaks HTTP there; None where it cannot be made here."""
    match fault.address:
        case None:
            with Loopback(*fault.steps, key=None) as server:
                yield server.url, server
        case "closed port":
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = taken.getsockname()[1]
            yield f"http://127.0.0.1:{port}", None
        case "no such host":
            with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "Name or service not known")):
                yield "http://no-such-host.invalid", None
        case "no TLS":
            with Loopback(says("a reply"), key=None) as server:
                yield server.url.replace("http:", "https:"), None
        case address:
            context = _tls(address, folder)
            if context is None:
                yield None, None
                return
            with Loopback(says("a reply"), key=None, tls=context) as server:
                yield server.url.replace("http:", "https:"), None


def _tls(address: Address, folder: Path) -> ssl.SSLContext | None:
    """A context with a certificate that nobody signed, or with none; None without the openssl command."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if address == "no cipher":
        return context  # without a certificate no cipher can be agreed on
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not certificate.exists():
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
        try:
            subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
    context.load_cert_chain(certificate, key)
    return context


# Streams


def stream(provider: str) -> bytes:
    """A whole stream with words and tool calls."""
    seen = Seen(FORMATS[provider], {}, {"stream_options": {"include_usage": True}})
    return encoded(stream_of(seen, Spoken(TEXT, CALLS)))


def run_streams(seed: int, n: int) -> Result:
    """Streams that end after any number of bytes, told by HTTP or not: never a reply, unless all of it came."""
    result = Result()
    places = [(provider, cut) for provider in PROVIDERS for cut in range(len(stream(provider)))]
    framings: list[Framing] = ["length", "chunked", "close"]
    drawn = random.Random(seed)
    chosen = sorted((*place, drawn.choice(framings)) for place in drawn.sample(places, n))
    with keys(), Loopback(*(_cut(*place) for place in chosen), key=KEY) as server:
        for at, (provider, cut, framing) in enumerate(chosen, 1):
            asked = ask(provider, server.url, streamed=True)
            result.outcomes[asked.outcome] += 1
            wrong = list(_short(asked)) + ([] if len(server.requests) == at else ["it was asked again"])
            result.failures += [f"{provider}, cut after {cut} bytes, {framing}: {one}" for one in wrong]
    return result


def _cut(provider: str, cut: int, framing: Framing) -> Step:
    answer = Answer(stream(provider), headers=EVENTS, keep=cut, framing=framing, piece=97)
    return lambda _: answer


def _short(asked: Asked) -> Iterator[str]:
    """What must not be: a reply of which something is missing, a class that says that nothing was paid, a told key."""
    if asked.reply is not None:
        yield f"a reply: {asked.reply.text!r}"
    elif asked.outcome != "lost":
        yield f"{asked.outcome}: {asked.error}"
    if not TEXT.startswith(asked.heard):
        yield f"heard {asked.heard!r}"
    if KEY in asked.told():
        yield "the key is told"
    if not 0 < asked.spent <= LIMIT:
        yield f"{asked.spent} tokens are counted"


FAULTS = Experiment(
    "http",
    len(cases()),
    "end in the right class of error after at most 5 calls, with waits as the server says, the budget kept and no key told",
    run_faults,
)
STREAMS = Experiment(
    "streams", 2_000, "be told as lost and perhaps paid for, after one call; never taken for a short reply", run_streams
)
