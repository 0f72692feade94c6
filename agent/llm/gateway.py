"""The one way to a language model: budget before each call, retries, and a row for every intent and every reply."""

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import tenacity
from pydantic import BaseModel, ValidationError

from neuronaut.agent.llm.base import LanguageModel, LanguageModelError, OutOfBudget, Reply, Request
from neuronaut.agent.llm.prices import Prices

MAX_CALLS = 5  # of one request, the first included
MALFORMED = "The reply did not fit the schema ({reason}). Reply again with JSON that fits it and nothing else."

R = TypeVar("R", bound=BaseModel)


class CallLog(Protocol):
    """Where calls are recorded: an intent before sending, an end after; earlier replies are found by request hash."""

    def begin_call(self, purpose: str, model: LanguageModel, request: dict[str, Any], request_sha256: str) -> str: ...

    def end_call(
        self, call: str, *, reply: Reply | None, error: str | None, usd_micro: int | None, seconds: float
    ) -> None: ...

    def earlier_reply(self, request_sha256: str) -> Reply | None: ...


class NoReply(Exception):
    """No usable reply came: refused, cut off, malformed twice, or the calls failed. The run goes on without it."""


@dataclass
class Spending:
    """What has been spent in this run; `usd_micro` is None as soon as one call has no known price."""

    calls: int = 0
    tokens: int = 0
    usd_micro: int | None = 0


@dataclass
class Gateway:
    """Asks one language model within limits: `max_tokens` counts in and out, `max_usd` needs known prices."""

    model: LanguageModel
    log: CallLog
    prices: Prices
    max_tokens: int | None = None
    max_usd: float | None = None
    spent: Spending = field(default_factory=Spending)
    sleep: Any = time.sleep

    def ask(self, request: Request, reply_type: type[R]) -> R:
        """The validated reply. One repair turn for a malformed one.

        Raises NoReply, OutOfBudget (nothing sent) or KeyRefused.
        """
        reply = self._reply(request)
        try:
            return reply_type.model_validate_json(reply.text)
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        repair = Request(
            request.purpose,
            request.system,
            f"{request.prompt}\n\n{MALFORMED.format(reason=reason)}",
            request.reply,
            request.max_tokens,
        )
        try:
            return reply_type.model_validate_json(self._reply(repair).text)
        except ValidationError as error:
            raise NoReply(f"the reply did not fit the schema twice ({error.error_count()} faults)") from None

    def _reply(self, request: Request) -> Reply:
        body = request.as_json() | {"provider": self.model.provider, "model": self.model.model}
        sha256 = hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        reply = self.log.earlier_reply(sha256) or self._call(request, body, sha256)
        if reply.stop_reason not in ("stop", "end_turn", "completed"):
            raise NoReply(f"the model stopped with {reply.stop_reason!r}")
        return reply

    def _call(self, request: Request, body: dict[str, Any], sha256: str) -> Reply:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(MAX_CALLS),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, LanguageModelError) and error.retriable),
            wait=_wait,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(self._call_once, request, body, sha256)
        except LanguageModelError as error:
            raise NoReply(str(error)) from None

    def _call_once(self, request: Request, body: dict[str, Any], sha256: str) -> Reply:
        self._check_budget()
        call, began = self.log.begin_call(request.purpose, self.model, body, sha256), time.monotonic()
        self.spent.calls += 1
        try:
            reply = self.model.ask(request)
        except Exception as error:
            self.log.end_call(call, reply=None, error=str(error), usd_micro=None, seconds=time.monotonic() - began)
            raise
        price = self.prices.micro_dollars(reply)
        self.spent.tokens += (reply.tokens_in or 0) + (reply.tokens_out or 0)
        known = self.spent.usd_micro is not None and price is not None
        self.spent.usd_micro = self.spent.usd_micro + price if known else None  # type: ignore[operator]
        self.log.end_call(call, reply=reply, error=None, usd_micro=price, seconds=time.monotonic() - began)
        return reply

    def _check_budget(self) -> None:
        if self.max_tokens is not None and self.spent.tokens >= self.max_tokens:
            raise OutOfBudget(f"the budget of {self.max_tokens} tokens is spent")
        if self.max_usd is None:
            return
        if self.spent.usd_micro is None or self.model.model not in self.prices.per_million:
            raise OutOfBudget(f"a budget in dollars needs the price of {self.model.model}: set $NEURONAUT_PRICES")
        if self.spent.usd_micro >= self.max_usd * 1e6:
            raise OutOfBudget(f"the budget of ${self.max_usd:g} is spent")


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds before the next call: what the server asked for, else exponential with jitter, at most 30."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, LanguageModelError) and error.retry_after is not None:
        return error.retry_after
    return float(tenacity.wait_random_exponential(multiplier=0.5, max=30)(state))
