"""The one way to a language model: budget before each call, a row for every intent and every reply, one repair turn."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from neuronaut.agent.llm.base import (
    COMPLETE,
    MAX_REPLY,
    LanguageModel,
    LanguageModelError,
    Reply,
    Request,
    plain,
)
from neuronaut.agent.llm.budget import Budget
from neuronaut.prompts import render
from neuronaut.tools.errors import UserError

R = TypeVar("R")


class CallLog(Protocol):
    """Where calls are recorded: an intent before sending, an end after; earlier replies are found by request hash."""

    def begin_call(self, purpose: str, model: LanguageModel, request: dict[str, Any], request_sha256: str) -> str:
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


class Malformed(Exception):
    """A reply that cannot be used; the sentence tells the language model what to mend."""


class NoReply(Exception):
    """No usable reply came: refused, cut off, malformed twice, or the call failed. The run goes on without it."""


@dataclass
class Gateway:
    """Asks one language model within its budget."""

    model: LanguageModel
    log: CallLog
    budget: Budget

    def ask(self, request: Request, read: Callable[[str], R]) -> R:
        """What `read` makes of the reply; where it finds the reply Malformed, of a second one to the mended request.

        Raises NoReply, OutOfBudget (nothing sent), or UserError where only the user can mend it.
        """
        try:
            return read(self._text(request))
        except Malformed as error:
            reason = str(error)
        try:
            return read(self._text(replace(request, prompt=render("repair", prompt=request.prompt, reason=reason))))
        except Malformed as error:
            raise NoReply(f"two replies could not be used: {error}") from None

    def _text(self, request: Request) -> str:
        body = request.as_json() | {
            "provider": self.model.provider,
            "model": self.model.model,
            "source": self.model.source,
        }
        asked = {name: value for name, value in body.items() if name != "max_tokens"}  # the budget may have cut it
        sha256 = hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
        reply = self.log.earlier_reply(sha256) or self._call(request, body, sha256)
        if reply.stop_reason not in COMPLETE:
            raise NoReply(f"the reply is not whole: it stopped with {plain(reply.stop_reason, 60)!r}")
        return reply.text

    def _call(self, request: Request, body: dict[str, Any], sha256: str) -> Reply:
        request = replace(request, max_tokens=self.budget.allowance(self.model, request))
        body = body | {"max_tokens": request.max_tokens}
        call, began = self.log.begin_call(request.purpose, self.model, body, sha256), time.monotonic()
        try:
            reply = _storable(self.model.ask(request))
        except (LanguageModelError, UserError) as error:
            lost = isinstance(error, LanguageModelError) and error.maybe_billed
            if lost:
                self.budget.add(self.model, body, None)
            seconds = time.monotonic() - began
            self.log.end_call(call, reply=None, error=str(error), usd_micro=None if lost else 0, seconds=seconds)
            if isinstance(error, UserError):
                raise
            raise NoReply(str(error)) from None
        self.budget.add(self.model, body, reply)
        price = self.budget.prices.micro_dollars(self.model, reply)
        self.log.end_call(call, reply=reply, error=None, usd_micro=price, seconds=time.monotonic() - began)
        return reply


def _storable(reply: Reply) -> Reply:
    """The reply with a text that any database takes, cut where it is longer than a language model can write."""
    text = reply.text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(text) > MAX_REPLY:
        text, reply = text[:MAX_REPLY], replace(reply, stop_reason=f"longer than {MAX_REPLY:,} characters")
    return replace(reply, text=text, model=plain(reply.model, 200), stop_reason=plain(reply.stop_reason, 100))
