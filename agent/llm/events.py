"""Server-sent events, read strictly: a stream that breaks off or holds anything else is an error, never a short reply."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from neuronaut.agent.llm.base import Heard, LanguageModelError, plain


class Event(NamedTuple):
    """One event: its name, "" where it has none, and its data."""

    name: str
    data: str


def events(chunks: Iterable[bytes], name: str) -> Iterator[Event]:
    """The events of a stream, whose bytes may come in any pieces. One that the stream ends in is left out, as the format wants.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
    """
    kind = ""
    data: list[str] = []
    for line in _lines(chunks, name):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(kind, "\n".join(data))
            kind, data = "", []
        elif field == "event":
            kind = value
        elif field == "data":
            data.append(value)


def _lines(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """The lines that ended, without their ends."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            try:
                yield line.removesuffix(b"\r").decode()
            except UnicodeDecodeError:
                raise malformed(name, "it is not UTF-8") from None


def json_of(event: Event, name: str) -> dict[str, Any]:
    """The JSON object that an event holds."""
    try:
        found = json.loads(event.data)
    except (ValueError, RecursionError):
        raise malformed(name, "an event is not JSON") from None
    if not isinstance(found, dict):
        raise malformed(name, "an event is no object")
    return found


def text_of(body: dict[str, Any], key: str, name: str) -> str:
    """A text in an event."""
    found = body.get(key)
    if not isinstance(found, str):
        raise malformed(name, f"{key} is no text")
    return found


def malformed(name: str, what: str) -> LanguageModelError:
    """The error for a stream that is in no known format."""
    return LanguageModelError(f"{name} sent a stream that is not in its format ({what})", maybe_billed=True)


def cut(name: str) -> LanguageModelError:
    """The error for a stream that ended before its reply did."""
    return LanguageModelError(f"{name} broke the connection off before its reply ended", maybe_billed=True)


def told_error(name: str, body: object) -> LanguageModelError:
    """The error that a service reports inside a stream."""
    message = body.get("message") if isinstance(body, dict) else body
    reason = plain(message, 300) if isinstance(message, str) and message else "no reason given"
    return LanguageModelError(f"{name} failed while it replied: {reason}", maybe_billed=True)


class Hiding:
    """Passes words on, with a secret blotted out, even one that comes in pieces."""

    def __init__(self, heard: Heard, secret: str) -> None:
        self._heard, self._secret, self._held = heard, secret, ""

    def __call__(self, words: str) -> None:
        """Pass on what cannot be the beginning of the secret."""
        text = (self._held + words).replace(self._secret, "[key]")
        longest = min(len(text), len(self._secret) - 1)
        kept = next((n for n in range(longest, 0, -1) if self._secret.startswith(text[-n:])), 0)
        self._held = text[len(text) - kept :]
        if passed := text[: len(text) - kept]:
            self._heard(passed)

    def end(self) -> None:
        """Pass on what was held back."""
        if self._held:
            self._heard(self._held)
        self._held = ""
