"""One call to a language model: held in the budget and recorded before it is sent, settled and recorded when it ended."""

import hashlib
import json
import time
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from neuronaut.agent.llm.base import (
    COMPLETE,
    MAX_REPLY,
    Call,
    Heard,
    LanguageModel,
    LanguageModelError,
    Reply,
    Request,
    plain,
)
from neuronaut.agent.llm.budget import Budget, Held
from neuronaut.agent.llm.counting import counted
from neuronaut.tools.errors import UserError

State = Literal["refused", "cut off", "filtered", "not whole", "malformed", "failed", "expired", "cancelled"]
_STOPPED: dict[str, State] = {
    "refusal": "refused", "length": "cut off", "max_tokens": "cut off", "max_output_tokens": "cut off",
    "model_context_window_exceeded": "cut off", "content_filter": "filtered",
}  # fmt: skip


class CallLog(Protocol):
    """Where calls are recorded: an intent before sending, an end after; earlier replies are found by request hash."""

    def begin_call(
        self, purpose: str, model: LanguageModel, request: dict[str, Any], request_sha256: str, about: str | None = None
    ) -> str:
        """The id of the intent."""
        ...

    def end_call(
        self, call: str, *, reply: Reply | None, error: str | None, usd_micro: int | None, seconds: float
    ) -> None:
        """Record the reply or the error. An error with `usd_micro` 0 cost nothing, with None perhaps something."""
        ...

    def earlier_reply(self, request_sha256: str) -> Reply | None:
        """A complete reply to the same request."""
        ...

    def say(self, line: str) -> None:
        """Show what has been spent so far."""
        ...


class Malformed(Exception):
    """A reply that cannot be used; the sentence tells the language model what to mend."""


class NoReply(Exception):
    """No usable reply came. The run goes on without it. `state` says of what kind that is."""

    def __init__(self, message: str, state: State = "failed") -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True)
class Begun:
    """A call that is recorded and held in the budget; `request` as it is sent, with what its reply may take."""

    call: str
    request: Request
    held: Held
    at: float


Outcome = Reply | LanguageModelError | UserError


@dataclass
class Calls:
    """Calls to one language model within one budget. `send` may run in any thread, the others in one."""

    model: LanguageModel
    log: CallLog
    budget: Budget

    @property
    def priced(self) -> bool:
        """Whether the price of the language model is known."""
        return self.budget.prices.of(self.model) is not None

    def body(self, request: Request) -> dict[str, Any]:
        """What is asked of whom, as it is recorded."""
        source = {"provider": self.model.provider, "model": self.model.model, "source": self.model.source}
        return request.as_json() | source

    def sha256(self, request: Request) -> str:
        """Of what is asked of whom: equal for requests that differ in nothing but what the budget lets a reply take, and in
        which files their words come from."""
        asked = {name: value for name, value in self.body(request).items() if name not in ("max_tokens", "prompts")}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def earlier(self, request: Request) -> Reply | None:
        """The complete reply that the notebook has to the same request."""
        return self.log.earlier_reply(self.sha256(request))

    def begin(self, request: Request, about: str | None, *, patient: bool = False) -> Begun:
        """Hold what the call may take, and record it. Raises OutOfBudget, or Later where `patient`, with no trace."""
        held = self.budget.reserve(self.model, request, about=about, patient=patient)
        request = replace(request, max_tokens=held.max_tokens)
        call = self.log.begin_call(request.purpose, self.model, self.body(request), self.sha256(request), about)
        return Begun(call, request, held, time.monotonic())

    def send(self, begun: Begun, heard: Heard | None = None) -> Outcome:
        """What came back."""
        try:
            return storable(self.model.ask(begun.request, heard))
        except (LanguageModelError, UserError) as error:
            return error

    def end(self, begun: Begun, outcome: Outcome) -> Reply:
        """Settle and record the call. Its reply, or raises NoReply, or the UserError that came back."""
        if isinstance(outcome, Reply):
            outcome = counted(outcome, begun.held.body)
        seconds, reply = time.monotonic() - begun.at, outcome if isinstance(outcome, Reply) else None
        if isinstance(outcome, Reply) or (isinstance(outcome, LanguageModelError) and outcome.maybe_billed):
            price = self.budget.settle(begun.held, self.model, reply)
        else:
            self.budget.release(begun.held)
            price = 0
        error = None if reply else str(outcome)
        self.log.end_call(begun.call, reply=reply, error=error, usd_micro=price, seconds=seconds)
        self.log.say(self.budget.line())
        if isinstance(outcome, UserError):
            raise outcome
        if isinstance(outcome, LanguageModelError):
            raise NoReply(str(outcome)) from None
        return outcome


def whole(reply: Reply) -> Reply:
    """The reply. Raises NoReply for one that was refused, cut off or filtered."""
    if reply.stop_reason in COMPLETE:
        return reply
    state = _STOPPED.get(reply.stop_reason, "not whole")
    raise NoReply(f"the reply is not whole: it stopped with {plain(reply.stop_reason, 60)!r}", state)


def storable(reply: Reply) -> Reply:
    """The reply with a text that any database takes, cut where it is longer than a language model can write."""
    text = _text(reply.text)
    calls = tuple(Call(_text(one.id), _text(one.name), _text(one.arguments)) for one in reply.calls)
    if max(len(text), sum(len(one.id + one.name + one.arguments) for one in calls)) > MAX_REPLY:
        stop = f"longer than {MAX_REPLY:,} characters"
        text, calls, reply = text[:MAX_REPLY], (), replace(reply, stop_reason=stop)
    stop, model = plain(reply.stop_reason, 100), plain(reply.model, 200)
    return replace(reply, text=text, calls=calls, model=model, stop_reason=stop)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
