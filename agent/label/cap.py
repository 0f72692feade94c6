"""What a batch may spend on its language model: no unit is begun that would probably not be finished."""

import threading
from dataclasses import dataclass, field

from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.llm.prices import dollars
from neuronaut.agent.session import BudgetSpent
from neuronaut.tools.errors import UserError

# Of one side of a unit, one proposal and its revisions: medians of docs/language-models.md, until a few units were asked about.
CALLS, TOKENS_IN, TOKENS_OUT = 2, 4_600, 1_100
ENOUGH = 5  # units from which their own mean is the estimate


@dataclass(frozen=True)
class Estimate:
    """What one unit probably takes; usd None where the price is not known."""

    calls: float
    tokens: float
    usd: float | None


@dataclass
class Cap:
    """The cap of a batch, and how many units were asked about within it."""

    gateway: Gateway
    units: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def estimate(self) -> Estimate:
        """Of the next unit: the mean so far, or at first what was measured elsewhere."""
        spent = self.gateway.budget.total
        if self.units >= ENOUGH:
            micro = None if spent.unpriced else spent.micro_dollars / self.units / 1e6
            return Estimate(spent.calls / self.units, spent.tokens / self.units, micro)
        price = self.gateway.budget.prices.of(self.gateway.model)
        usd = None if price is None else (TOKENS_IN * price.tokens_in + TOKENS_OUT * price.tokens_out) / 1e6
        return Estimate(CALLS, TOKENS_IN + TOKENS_OUT, usd)

    def refuse_too_small(self) -> None:
        """Refuses a cap that does not hold one unit, and says what one takes."""
        limits, one = self.gateway.budget.run, self.estimate
        if limits.calls is not None and limits.calls < one.calls:
            raise _too_small(f"--budget-calls {limits.calls}", f"{one.calls:g} calls")
        if limits.tokens is not None and limits.tokens < one.tokens:
            raise _too_small(f"--budget-tokens {limits.tokens:,}", f"{one.tokens:,.0f} tokens")
        if limits.usd is not None and one.usd is not None and limits.usd < one.usd:
            raise _too_small(f"--budget-usd {limits.usd:g}", dollars(one.usd))

    def begin(self) -> None:
        """Count another unit. Raises BudgetSpent where what is left does not hold it."""
        with self._turn:
            self._begin()

    def _begin(self) -> None:
        limits, spent, one = self.gateway.budget.run, self.gateway.budget.total, self.estimate
        if limits.calls is not None and limits.calls - spent.calls < one.calls:
            raise _spent(f"{limits.calls:,} calls", f"{limits.calls - spent.calls:,}", f"{one.calls:.1f}")
        if limits.tokens is not None and limits.tokens - spent.tokens - spent.held_tokens < one.tokens:
            left = max(0, limits.tokens - spent.tokens - spent.held_tokens)
            raise _spent(f"{limits.tokens:,} tokens", f"{left:,}", f"{one.tokens:,.0f}")
        if limits.usd is not None and one.usd is not None:
            left_usd = limits.usd - (spent.micro_dollars + spent.held_micro) / 1e6
            if left_usd < one.usd:
                raise _spent(dollars(limits.usd), dollars(max(0.0, left_usd)), dollars(one.usd))
        self.units += 1


def _too_small(cap: str, unit: str) -> UserError:
    return UserError(f"{cap} does not hold one unit, which takes about {unit}: give more, or leave --llm out")


def _spent(cap: str, left: str, unit: str) -> BudgetSpent:
    return BudgetSpent(f"of the cap of {cap} {left} are left, and a unit takes about {unit}: no other one was begun")
