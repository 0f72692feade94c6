"""What may still be spent on a language model, by a run and by each unit, held back before each call so that none passes it."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from neuronaut.agent.config import Budget as Limits
from neuronaut.agent.llm.base import LanguageModel, OutOfBudget, Reply, Request
from neuronaut.agent.llm.counting import Counting, counted
from neuronaut.agent.llm.counting import most_tokens_in as most_tokens_in
from neuronaut.agent.llm.prices import Price, Prices, dollars
from neuronaut.tools.errors import UserError

LEAST_REPLY = 500  # tokens; in fewer no hypothesis fits
UNIT = Limits(calls=13, tokens=17_000)  # of one question about one neuron: both sides and their revisions
WHOLE = Limits()


def _calls(n: int) -> str:
    return "call" if n == 1 else "calls"


class UnitSpent(OutOfBudget):
    """What one unit may take is spent, and the run's own limits are not: other units are still asked about."""


class Later(Exception):
    """Calls in flight hold what the next one may take, and may give it back."""


@dataclass
class Account:
    """What has been spent under some limits, and what is held for calls in flight."""

    limits: Limits
    of: str = ""  # the unit, or the question where it has none; "" is the run
    began: float = 0.0
    calls: int = 0
    tokens: int = 0
    micro_dollars: int = 0
    held_tokens: int = 0
    held_micro: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    lost: int = 0  # calls whose tokens are not known
    unpriced: int = 0

    def allowance(self, tokens_in: int, wanted: int, price: Price | None, now: float, *, held: bool = True) -> int:
        """How many tokens a reply may take of the `wanted` ones; `held`: besides what is held. Raises OutOfBudget where too
        few are left for one."""
        least, allowed, limits = min(LEAST_REPLY, wanted), wanted, self.limits
        if limits.calls is not None and self.calls >= limits.calls:
            raise self._spent(f"of {limits.calls:,} {_calls(limits.calls)}", "is spent; the next one was not made")
        if limits.seconds is not None and now - self.began >= limits.seconds:
            raise self._spent(f"of {limits.seconds:g} seconds", "is spent; the next call was not made")
        if limits.tokens is not None:
            left = limits.tokens - self.tokens - self.held_tokens * held
            if (allowed := min(allowed, left - tokens_in)) < least:
                may = f"has {max(0, left):,} left and the next call may take {tokens_in + least:,}; it was not made"
                raise self._spent(f"of {limits.tokens:,} tokens", may)
        if limits.usd is not None and price is not None:
            micro = math.floor(limits.usd * 1e6) - self.micro_dollars - self.held_micro * held
            of_reply = micro - math.ceil(tokens_in * price.dearest_in)
            if of_reply < least * price.tokens_out or of_reply < 0:
                has = f"has {dollars(max(0, micro) / 1e6)} left, too little for the next call; it was not made"
                raise self._spent(f"of {dollars(limits.usd)}", has)
            allowed = min(allowed, math.floor(of_reply / price.tokens_out)) if price.tokens_out else allowed
        return allowed

    def add(self, other: "Account") -> None:
        """What was spent under another account is spent under this one."""
        self.began = min(self.began, other.began)
        for name in ("calls", "tokens", "micro_dollars", "tokens_in", "tokens_cached", "lost", "unpriced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def _spent(self, limit: str, why: str) -> OutOfBudget:
        if self.of:
            return UnitSpent(f"the budget {limit} for {self.of} {why}")
        return OutOfBudget(f"the budget {limit} {why}")


@dataclass(frozen=True)
class Held:
    """What is held for one call: a high estimate, in dollars too. `max_tokens` is what its reply may take."""

    accounts: tuple[Account, ...]
    tokens_in: int
    max_tokens: int
    micro_dollars: int
    batch: bool
    body: dict[str, Any]
    priced: bool


@dataclass
class Budget:
    """Limits of a run and of each of its units, None for no limit, and the most that may have been spent of them.

    A call whose reply was lost counts as if it had used all that it was allowed. May be used by several threads.
    """

    prices: Prices
    run: Limits = WHOLE
    unit: Limits = WHOLE
    clock: Callable[[], float] = time.monotonic
    total: Account = field(init=False)
    open: dict[str, Held] = field(default_factory=dict, init=False)  # of calls that wait in a batch, by their ids
    _units: dict[str, Account] = field(default_factory=dict, init=False)
    _counting: Counting = field(default_factory=Counting, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.total = Account(self.run, began=self.clock())

    @classmethod
    def of(cls, prices: Prices, limits: Limits) -> "Budget":
        """With the limits that a user gave; where he gave none of calls, tokens or dollars, each unit has its own."""
        own = (limits.calls, limits.tokens, limits.usd) != (None, None, None)
        return cls(prices, run=limits, unit=WHOLE if own else UNIT)

    def check(self, model: LanguageModel) -> None:
        """Refuses a limit in dollars on a model whose price is unknown."""
        if (self.run.usd, self.unit.usd) != (None, None) and self.prices.of(model) is None:
            raise UserError(
                f"--budget-usd needs the price of {model.model!r}: write it into the table that $NEURONAUT_PRICES names "
                "(docs/language-models.md)"
            )

    def reserve(
        self,
        model: LanguageModel,
        request: Request,
        *,
        about: str | None = None,
        batch: bool = False,
        patient: bool = False,
    ) -> Held:
        """Hold what a call may take, of the run and of the unit that it is about. Raises OutOfBudget where a limit could be
        passed, or Later where `patient` and the reply might be longer once calls in flight have ended."""
        body, price = request.as_json(), self.prices.of(model, batch=batch)
        with self._lock:
            accounts, now, tokens_in = self._accounts(about), self.clock(), self._counting.most_in(body)

            def allowance(*, held: bool) -> int:
                return min(one.allowance(tokens_in, request.max_tokens, price, now, held=held) for one in accounts)

            most = allowance(held=False)
            try:
                allowed = allowance(held=True)
            except OutOfBudget:
                if patient:
                    raise Later from None
                raise
            if patient and allowed < most:
                raise Later
            return self._hold(accounts, (tokens_in, allowed), price, batch, body)

    def begun(
        self,
        model: LanguageModel,
        body: dict[str, Any],
        *,
        about: str | None = None,
        batch: bool = False,
        counted: bool = False,
    ) -> Held:
        """Hold what a call took that was made before the run was resumed; no limit is asked. counted: by the run, and now by
        what it is about."""
        with self._lock:
            accounts = self._accounts(about)[1 if counted else 0 :]
            price = self.prices.of(model, batch=batch)
            most = (most_tokens_in(body), int(body["max_tokens"]))
            return self._hold(accounts, most, price, batch, body)

    def _accounts(self, about: str | None) -> tuple[Account, ...]:
        if about is None:
            return (self.total,)
        return (self.total, self._units.setdefault(about, Account(self.unit, about, self.clock())))

    def _hold(
        self,
        accounts: tuple[Account, ...],
        most: tuple[int, int],
        price: Price | None,
        batch: bool,
        body: dict[str, Any],
    ) -> Held:
        tokens_in, allowed = most
        micro = 0
        if price is not None:
            micro = math.ceil(tokens_in * price.dearest_in) + math.ceil(allowed * price.tokens_out)
        for account in accounts:
            account.calls += 1
            account.held_tokens += tokens_in + allowed
            account.held_micro += micro
        return Held(accounts, tokens_in, allowed, micro, batch, body, price is not None)

    def release(self, held: Held) -> None:
        """A call ended that was not billed."""
        with self._lock:
            self._take(held, 0, 0)
            for account in held.accounts:
                account.unpriced += not held.priced

    def settle(self, held: Held, model: LanguageModel, reply: Reply | None) -> int | None:
        """A call ended that was billed, or may have been and was lost (`reply` is None). The exact price in millionths of a
        dollar, None where it is unknown."""
        reply = reply and counted(reply, held.body)
        n_in = held.tokens_in if reply is None or reply.tokens_in is None else reply.tokens_in
        n_out = held.max_tokens if reply is None or reply.tokens_out is None else reply.tokens_out
        exact = None if reply is None else self.prices.micro_dollars(model, reply, batch=held.batch)
        price = (reply and self.prices.of(model, reply.model, held.batch)) or self.prices.of(model, batch=held.batch)
        guess = 0 if price is None else math.ceil(n_in * price.dearest_in + n_out * price.tokens_out)
        with self._lock:
            self._take(held, n_in + n_out, guess if exact is None else exact)
            if reply is not None and reply.tokens_in is not None:
                self._counting.add(held.body, reply.tokens_in)
            for account in held.accounts:
                account.tokens_in += n_in
                account.tokens_cached += (reply.tokens_cached or 0) if reply else 0
                account.lost += reply is None or None in (reply.tokens_in, reply.tokens_out)
                account.unpriced += price is None
        return exact

    def _take(self, held: Held, tokens: int, micro: int) -> None:
        for account in held.accounts:
            account.held_tokens -= held.tokens_in + held.max_tokens
            account.held_micro -= held.micro_dollars
            account.tokens += tokens
            account.micro_dollars += micro

    def next_question(self) -> None:
        """From now on each unit has its own limits anew; those of the run go on."""
        with self._lock:
            self._units = {}

    def done_with(self, about: str) -> None:
        """What it is about has its limits anew where it is asked about again."""
        with self._lock:
            self._units.pop(about, None)

    def turned_out(self, about: str, unit: str) -> None:
        """What was asked about something, while it was not known to be this unit, was asked about the unit."""
        with self._lock:
            asked, account = self._units.pop(about, None), self._accounts(unit)[-1]
            if asked is not None:
                account.add(asked)

    def line(self) -> str:
        """What has been spent so far, in a few words: "3 calls, 5,120 tokens (62 % cached), $0.0123"."""
        with self._lock:
            total = self.total
            most = "at most " if total.lost else ""
            calls = f"{total.calls:,} {_calls(total.calls)}"
            share = 100 * total.tokens_cached // total.tokens_in if total.tokens_in else 0
            cached = f" ({share} % cached)" if total.tokens_cached else ""
            paid = "price unknown" if total.unpriced else f"{most}{dollars(total.micro_dollars / 1e6)}"
            return f"{calls}, {most}{total.tokens:,} tokens{cached}, {paid}"
