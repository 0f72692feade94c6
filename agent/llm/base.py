"""What the agent needs of a language model: a structured reply, its token counts, and errors that say who can mend them."""

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from neuronaut.tools.errors import UserError

TIMEOUT = 300.0  # seconds for one reply: a model on this machine's processor may need minutes
CONNECT = 10.0  # seconds for a connection
MAX_REPLY = 4_000_000  # characters, far more than any reply within `max_tokens`
SECRET = 8  # characters; a shorter key, such as EMPTY for a local server, may stand in any text
COUNTS = ("tokens_in", "tokens_cached", "tokens_written", "tokens_out")  # of a reply, as a notebook keeps them
COMPLETE = frozenset({"stop", "end_turn", "completed", "tool_calls", "tool_use"})

_ORDERS = (
    re.compile(  # to a terminal. Source: ECMA-48, sections 5.3 to 5.6; a string ends with ST, or with BEL as in xterm
        r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences, such as colours
        r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # strings, such as titles
        r"|\x1b[ -/]*[0-~]?"
    )
)
W = TypeVar("W", bound=BaseModel)


@dataclass(frozen=True)
class Offered:
    """A tool that the language model may call. arguments: a JSON schema, an object whose properties are plain values or lists."""

    name: str
    description: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A tool call as the language model wrote it: the name may be of no tool, and `arguments` no JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Said:
    """A turn of the language model: its words, and the tools that it calls."""

    text: str
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Told:
    """A turn of ours: what each call of the turn before gave, by its id, and words."""

    text: str = ""
    results: tuple[tuple[str, str], ...] = ()


Turn = Said | Told
Heard = Callable[[str], None]  # gets the words of a reply as they come


@dataclass(frozen=True)
class Request:
    """A prompt, the turns that followed it, and what is wanted next: JSON of the pydantic model `reply`, or words and tool calls
    where it is None. `max_tokens` limits the reply. What comes first is what stays the same, so that it is read from a cache.
    `prompts`: name and hash of each prompt file that its words come from, for the record."""

    purpose: str
    system: str
    prompt: str
    reply: type[BaseModel] | None = None
    max_tokens: int = 4096
    turns: tuple[Turn, ...] = ()
    tools: tuple[Offered, ...] = ()
    prompts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The request as data, for hashing, logging and replaying."""
        body: dict[str, Any] = {
            "purpose": self.purpose,
            "system": self.system,
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
        }
        if self.reply is not None:
            body["schema"] = schema_of(self)
        if self.turns:
            body["turns"] = [{"by": "model" if isinstance(turn, Said) else "us", **asdict(turn)} for turn in self.turns]
        if self.tools:
            body["tools"] = [asdict(tool) for tool in self.tools]
        if self.prompts:
            body["prompts"] = list(self.prompts)
        return body


@dataclass(frozen=True)
class Reply:
    """What came back. Token counts as the provider billed them, None where it does not say; `tokens_in` holds those that were
    read from the cache and those that were written to it."""

    text: str
    model: str
    stop_reason: str
    tokens_in: int | None
    tokens_cached: int | None
    tokens_out: int | None
    calls: tuple[Call, ...] = ()
    tokens_written: int | None = None


class LanguageModel(Protocol):
    """Answers one request: with JSON text that should fit `request.reply`, or with words and tool calls; validating is the
    caller's."""

    @property
    def provider(self) -> str:
        """As written before the colon of --llm."""
        ...

    @property
    def model(self) -> str:
        """As written after the colon of --llm."""
        ...

    @property
    def source(self) -> str:
        """What else decides its replies: the address that is asked, or the hash of a script."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most that one reply may take, thinking included."""
        ...

    @property
    def billed(self) -> bool:
        """False where no reply can cost anything."""
        ...

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """One reply; `heard`, where given, gets its words as they come. Raises LanguageModelError, or UserError where only the user can mend it."""
        ...


class LanguageModelError(Exception):
    """The call failed. `maybe_billed`: a reply may have been made and paid for, and was lost.

    `again_after`: seconds after which the same request may be sent again, None where that is no use or could be paid twice.
    """

    def __init__(self, message: str, *, maybe_billed: bool = False, again_after: float | None = None) -> None:
        super().__init__(message)
        self.maybe_billed, self.again_after = maybe_billed, again_after


class KeyRefused(UserError):
    """There is no key, or the provider refused it; the key is not shown."""


class OutOfBudget(Exception):
    """The next call could pass a limit; nothing was sent."""


def schema_of(request: Request) -> dict[str, Any]:
    """The JSON schema of the reply that a request wants; any object where it wants words."""
    return {} if request.reply is None else _schema(request.reply)


@cache
def _schema(form: type[BaseModel]) -> dict[str, Any]:
    """Made once, and only read: each request of many is hashed with it."""
    return form.model_json_schema()


def key_of(variable: str) -> str | None:
    """The key in an environment variable, None where there is none. Refuses one that no HTTP header can hold."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise KeyRefused(f"{variable} holds characters that no key has: set it again")
    return key or None


def needed_key(name: str, variable: str) -> str:
    """The key in an environment variable; where there is none, the way without one is named too."""
    key = key_of(variable)
    if not key:
        raise KeyRefused(
            f"--llm {name} needs a key: set the environment variable {variable}, or leave --llm out, since the built-in proposer "
            "needs none"
        )
    return key


def http_failure(
    name: str, status: int, reason: str, key_variable: str, again_after: float | None
) -> LanguageModelError | UserError:
    """The error for a reply with an HTTP error status; `reason` is what the server wrote, without secrets."""
    reason = plain(reason, 300) or "no reason given"
    match status:
        case 401:
            return KeyRefused(f"{name} refused the key (HTTP 401): check {key_variable}. It said: {reason}")
        case 403:
            return KeyRefused(f"{name} does not allow this to the key in {key_variable} (HTTP 403). It said: {reason}")
        case 404:
            return UserError(
                f"{name} was not found (HTTP 404): check the names in --llm and --base-url. It said: {reason}"
            )
    return LanguageModelError(f"{name} answered with HTTP {status}: {reason}", again_after=again_after)


def said(body: object, otherwise: str) -> str:
    """The message in the body of an error, in the places where servers put it."""
    for place in (body.get("error", body), body) if isinstance(body, dict) else ():
        found = place.get("message") if isinstance(place, dict) else place
        if isinstance(found, str) and found:
            return found
    return otherwise


def broken_connection(name: str, source: str, cause: BaseException | None) -> LanguageModelError:
    """The error for a server that no connection could be made to, or whose reply broke off."""
    if type(cause).__name__ in ("ConnectError", "ConnectTimeout"):
        message = f"{name} cannot be reached at {source}: check that address and the network"
        return LanguageModelError(message, again_after=0.5)
    return LanguageModelError(f"{name} at {source} broke the connection off before its reply ended", maybe_billed=True)


def timed_out(name: str, seconds: float) -> LanguageModelError:
    """The error for a reply that took too long."""
    return LanguageModelError(f"{name} gave no reply within {seconds:g} seconds", maybe_billed=True)


def wire(form: type[W], body: bytes, name: str) -> W:
    """The body of a successful HTTP reply as `form`. Raises LanguageModelError where it is something else."""
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise LanguageModelError(
            f"{name} sent a reply that is not in its format ({where}: {plain(first['msg'], 200)})", maybe_billed=True
        ) from None


def hidden(text: str, secret: str) -> str:
    """The text with the secret blotted out, should a server have sent it back."""
    return text.replace(secret, "[key]") if len(secret) >= SECRET else text


def address(url: str) -> str:
    """The address of a server as it may be shown and stored: without a password or a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def plain(text: str, limit: int) -> str:
    """The text in one line of at most `limit` characters, without orders to a terminal; control and direction characters are
    replaced by spaces."""
    shown = _ORDERS.sub("", text[: 4 * limit])
    kept = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in shown)
    line = " ".join(kept.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
