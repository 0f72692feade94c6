"""What is recorded of a batch of requests, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from neuronaut.agent.llm.base import LanguageModel, Reply
from neuronaut.agent.llm.calls import State

Row = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """An item that brought no reply. billed: it may have cost something."""

    state: State
    message: str
    billed: bool = False


@dataclass(frozen=True)
class Intent:
    """A request of a batch, as it is recorded before it is sent."""

    purpose: str
    request: Row
    sha256: str
    about: str | None


@dataclass(frozen=True)
class End:
    """How an item of a batch ended, as it is recorded. usd_micro: 0 cost nothing, None perhaps something."""

    outcome: Reply | Failure
    usd_micro: int | None


class BatchLog(Protocol):
    """Where batches are recorded: all intents before one is sent, the service's id of it after, all ends at once."""

    def begin_batch(self, model: LanguageModel, items: Sequence[Intent]) -> tuple[str, tuple[str, ...]]:
        """The ids of the batch and of its calls."""
        ...

    def sent_batch(self, batch: str, remote: str) -> None:
        """The service took the batch."""
        ...

    def end_batch(self, batch: str, outcome: str, reason: str, ends: dict[str, End]) -> None:
        """The batch ended, with all of its calls that had not."""
        ...

    def batches(self) -> list[Row]:
        """All batches of the run, as `memory.queries.batches` gives them."""
        ...

    def reply_of(self, call: Row) -> Reply | None:
        """The reply of a call of a batch; None for one that failed."""
        ...

    def earlier_reply(self, request_sha256: str) -> Reply | None:
        """A complete reply to the same request."""
        ...

    def say(self, line: str) -> None:
        """Show how far a batch is."""
        ...
