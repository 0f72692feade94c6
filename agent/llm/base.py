"""What the agent needs of a language model: a structured reply, its price, and errors that say who can mend them."""

from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from neuronaut.tools.errors import UserError


@dataclass(frozen=True)
class Request:
    """One structured question. `reply` is the pydantic model that the answer must fit."""

    purpose: str
    system: str
    prompt: str
    reply: type[BaseModel]
    max_tokens: int = 4096

    def as_json(self) -> dict[str, Any]:
        """The request as data, for hashing, logging and replaying."""
        return {
            "purpose": self.purpose,
            "system": self.system,
            "prompt": self.prompt,
            "schema": self.reply.model_json_schema(),
            "max_tokens": self.max_tokens,
        }


@dataclass(frozen=True)
class Reply:
    """What came back. Token counts as the provider billed them; None where it does not say."""

    text: str
    model: str
    stop_reason: str
    tokens_in: int | None
    tokens_cached: int | None
    tokens_out: int | None


class LanguageModel(Protocol):
    """Answers one request with JSON text that should fit `request.reply`; validating is the caller's."""

    @property
    def provider(self) -> str: ...

    @property
    def model(self) -> str: ...

    def ask(self, request: Request) -> Reply: ...


class LanguageModelError(Exception):
    """The call failed. `retry_after`: seconds that the server asked for; `retriable`: the same call may succeed later."""

    def __init__(self, message: str, *, kind: str, retriable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retriable = retriable
        self.retry_after = retry_after


class KeyRefused(UserError):
    """The provider refused the key; the run stops and the key is not shown."""


class OutOfBudget(Exception):
    """The next call would pass a limit; nothing was sent."""


RETRIABLE_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


def failure(
    provider: str, status: int | None, message: str, retry_after: str | None = None
) -> LanguageModelError | KeyRefused:
    """The error class for an HTTP status; None is a connection that broke or timed out."""
    if status in (401, 403):
        return KeyRefused(f"{provider} refused the key (HTTP {status}): check the key in the environment variable")
    retriable = status is None or status in RETRIABLE_STATUS
    kind = "connection" if status is None else f"http {status}"
    return LanguageModelError(
        f"{provider}: {message[:300]}", kind=kind, retriable=retriable, retry_after=_seconds(retry_after)
    )


def _seconds(retry_after: str | None) -> float | None:
    try:
        return None if retry_after is None else min(60.0, max(0.0, float(retry_after)))
    except ValueError:
        return None
