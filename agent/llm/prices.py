"""What a call costs, from a table of prices that the user keeps; an unknown price is None, never 0."""

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from neuronaut.agent.llm.base import LanguageModel, Reply
from neuronaut.tools.errors import UserError


class Price(NamedTuple):
    """US dollars for a million tokens, which is micro-dollars for one. tokens_written: into the cache, None where the table
    does not say."""

    tokens_in: float
    tokens_cached: float
    tokens_out: float
    tokens_written: float | None = None

    @property
    def dearest_in(self) -> float:
        """The most that a token of a request may cost."""
        return max(self.tokens_in, self.tokens_cached, self.tokens_written or 0.0)


FREE = Price(0.0, 0.0, 0.0, 0.0)
BATCH = 0.5  # of the price of a single call: what both services ask for their batches
# Of the price in: what is written into the cache. Source: https://docs.claude.com/en/docs/build-with-claude/prompt-caching
WRITTEN = {"anthropic": 1.25}
DIGITS = 4  # of a sum of money after the point, more where it is smaller
_DATED = re.compile(r"([-@:](\d[\d-]*|latest))?")


@dataclass(frozen=True)
class Prices:
    """Prices by model name. `date` says when they were noted."""

    date: str
    per_million: dict[str, Price]
    batch_per_million: dict[str, Price] = field(default_factory=dict)

    def of(self, model: LanguageModel, answered_by: str | None = None, batch: bool = False) -> Price | None:
        """The price of the model that answered, before a call of the one asked for; None where it is unknown.

        A dated name (`gpt-x-2026-01-31`) without a price of its own has that of `gpt-x`, where `gpt-x` was asked for. In a
        batch it is half, unless the table has a batch price of the model. A price of what is written into the cache is always
        there.
        """
        if not model.billed:
            return FREE
        name = answered_by or model.model
        dated = name.startswith(model.model) and _DATED.fullmatch(name[len(model.model) :])
        for known in (name, model.model) if dated else (name,):
            if batch and known in self.batch_per_million:
                return _complete(self.batch_per_million[known], model.provider)
            if found := self.per_million.get(known):
                return _complete(found, model.provider, BATCH if batch else 1.0)
        return None

    def micro_dollars(self, model: LanguageModel, reply: Reply, *, batch: bool = False) -> int | None:
        """The price of a reply in millionths of a dollar; None where the price or a count is unknown."""
        price = self.of(model, reply.model, batch)
        if price == FREE:
            return 0
        if price is None or reply.tokens_in is None or reply.tokens_out is None:
            return None
        cached = min(reply.tokens_cached or 0, reply.tokens_in)
        written = min(reply.tokens_written or 0, reply.tokens_in - cached)
        counts = (reply.tokens_in - cached - written, cached, reply.tokens_out, written)
        return math.ceil(sum(count * (dollars or 0.0) for count, dollars in zip(counts, price, strict=True)))


def _complete(price: Price, provider: str, share: float = 1.0) -> Price:
    """So much of a price, with that of what is written into the cache: the table's, else what the service asks."""
    written = price.tokens_in * WRITTEN.get(provider, 1.0) if price.tokens_written is None else price.tokens_written
    return Price(*(share * one for one in (price.tokens_in, price.tokens_cached, price.tokens_out, written)))


def dollars(usd: float) -> str:
    """A sum of money with at least two digits that say something: "$0.0123", "$0.00001"."""
    more = 1 - math.floor(math.log10(usd)) if usd > 0 else 0
    whole, _, rest = f"{usd:,.{max(DIGITS, more)}f}".partition(".")
    return f"${whole}.{rest[:DIGITS]}{rest[DIGITS:].rstrip('0')}"


def read_prices() -> Prices:
    """The table that $NEURONAUT_PRICES names, JSON {"date": …, "per_million": {model: [in, cached, out]}} and, where a batch
    does not cost half, "batch_per_million"; else an empty one. A fourth price is of what is written into the cache."""
    path = os.environ.get("NEURONAUT_PRICES")
    if not path:
        return Prices("none", {})
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        return Prices(str(table["date"]), _rows(table["per_million"]), _rows(table.get("batch_per_million", {})))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the price table {path!r} cannot be read ({error}): see docs/language-models.md") from None


def _rows(table: dict[str, list[float]]) -> dict[str, Price]:
    rows = {str(name): tuple(map(float, row)) for name, row in table.items()}
    if not all(math.isfinite(dollars) and dollars >= 0 for row in rows.values() for dollars in row):
        raise ValueError("a price is negative or not a number")
    return {name: Price(*row) for name, row in rows.items()}
