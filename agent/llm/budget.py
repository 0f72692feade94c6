"""What a run may still spend on its language model, counted so that no reply can pass a limit."""

from dataclasses import dataclass, field
from typing import Any

from neuronaut.agent.llm.base import LanguageModel, OutOfBudget, Reply, Request
from neuronaut.agent.llm.prices import Prices
from neuronaut.tools.errors import UserError

BYTES_A_TOKEN = 2  # a low guess, so that the count of tokens before a call is a high one: English text has about 4
LEAST_REPLY = 500  # tokens; in fewer no hypothesis fits


def most_tokens_in(body: dict[str, Any]) -> int:
    """More tokens than the request can take, its schema included."""
    parts = ("system", "prompt", "schema", "turns", "tools")
    text = "".join(str(body[part]) for part in parts if part in body).encode("utf-8", "replace")
    not_ascii = sum(byte > 127 for byte in text)  # of other scripts a tokenizer may make one token a byte
    return (len(text) - not_ascii) // BYTES_A_TOKEN + not_ascii


@dataclass
class Budget:
    """Limits in tokens (in and out) and dollars, None for no limit, and the most that may have been spent of them.

    A call whose reply was lost counts as if it had used all that it was allowed.
    """

    prices: Prices
    max_tokens: int | None = None
    max_usd: float | None = None
    tokens: int = field(default=0, init=False)
    micro_dollars: float = field(default=0.0, init=False)

    def check(self, model: LanguageModel) -> None:
        """Refuses a limit in dollars on a model whose price is unknown."""
        if self.max_usd is not None and self.prices.of(model) is None:
            raise UserError(
                f"--budget-usd needs the price of {model.model!r}: write it into the table that $NEURONAUT_PRICES names "
                "(docs/language-models.md)"
            )

    def allowance(self, model: LanguageModel, request: Request) -> int:
        """How many tokens the reply may take. Raises OutOfBudget where too few are left for one."""
        allowed, tokens_in = request.max_tokens, most_tokens_in(request.as_json())
        if self.max_tokens is not None:
            allowed = min(allowed, self.max_tokens - self.tokens - tokens_in)
            if allowed < LEAST_REPLY:
                raise OutOfBudget(
                    f"the budget of {self.max_tokens:,} tokens has {max(0, self.max_tokens - self.tokens):,} left and the "
                    f"next call may take {tokens_in + LEAST_REPLY:,}; it was not made"
                )
        price = self.prices.of(model)
        if self.max_usd is not None and price is not None:
            left = self.max_usd * 1e6 - self.micro_dollars - tokens_in * price.tokens_in
            if left < LEAST_REPLY * price.tokens_out:
                raise OutOfBudget(
                    f"the budget of ${self.max_usd:g} has ${max(0.0, self.max_usd - self.micro_dollars / 1e6):.4f} left, too "
                    "little for the next call; it was not made"
                )
            allowed = min(allowed, int(left / price.tokens_out)) if price.tokens_out else allowed
        return allowed

    def add(self, model: LanguageModel, body: dict[str, Any], reply: Reply | None) -> None:
        """Count a call that may have been billed; `reply` is None where it was lost."""
        most = (most_tokens_in(body), int(body["max_tokens"]))
        n_in = most[0] if reply is None or reply.tokens_in is None else reply.tokens_in
        n_out = most[1] if reply is None or reply.tokens_out is None else reply.tokens_out
        self.tokens += n_in + n_out
        price = (reply and self.prices.of(model, reply.model)) or self.prices.of(model)
        exact = None if reply is None else self.prices.micro_dollars(model, reply)
        if exact is not None:
            self.micro_dollars += exact
        elif price is not None:
            self.micro_dollars += n_in * price.tokens_in + n_out * price.tokens_out
