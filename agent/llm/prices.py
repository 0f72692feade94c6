"""What a call costs, from a table of prices that the user keeps; an unknown price is None, never 0."""

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from neuronaut.agent.llm.base import LanguageModel, Reply, plain
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
DEAREST = 1_000_000  # dollars for a million tokens
EXAMPLE = '{"date": "2026-11-01", "per_million": {"MODEL": [3.0, 0.3, 15.0]}}'
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
    except OSError as error:
        why = (error.strerror or "it cannot be opened").lower()
        raise UserError(
            f"the price table {path!r} cannot be read ({why}): NEURONAUT_PRICES must name a JSON file, or be unset"
        ) from None
    except json.JSONDecodeError as error:
        raise _wrong(path, f"is not JSON (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise _wrong(path, "is not JSON") from None
    if not isinstance(table, dict):
        raise _wrong(path, f"holds {_kind(table)} instead of an object")
    date = table.get("date")
    if isinstance(date, bool) or not isinstance(date, str | int) or date == "":
        raise _wrong(path, "has no date")
    if "per_million" not in table:
        raise _wrong(path, "has no prices: per_million is missing")
    return Prices(str(date), *(_rows(path, name, table.get(name, {})) for name in ("per_million", "batch_per_million")))


def _rows(path: str, name: str, table: object) -> dict[str, Price]:
    """The prices by model. Refuses any that are wrong."""
    if not isinstance(table, dict):
        raise _wrong(path, f"holds {_kind(table)} under {name} instead of an object")
    for model, row in table.items():
        of = f"the price of {plain(model, 60)!r} in {name}"
        if not isinstance(row, list):
            raise _wrong(path, f"has {_kind(row)} as {of} instead of a list")
        if len(row) not in (3, 4):
            raise _wrong(path, f"has {len(row)} {'number' if len(row) == 1 else 'numbers'} as {of} instead of 3 or 4")
        for one in row:
            if isinstance(one, bool) or not isinstance(one, int | float):
                raise _wrong(path, f"has {_kind(one)} in {of} instead of a number")
            if not 0 <= one <= DEAREST:
                raise _wrong(path, f"has a number in {of} that is not from 0 to {DEAREST:,}")
    return {model: Price(*map(float, row)) for model, row in table.items()}


def _kind(value: object) -> str:
    """What a JSON value is, in plain words."""
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return "a number"


def _wrong(path: str, why: str) -> UserError:
    """The error for a table that is not as it should be."""
    return UserError(
        f"the price table {path!r} {why}: write dollars for a million tokens in, in from the cache, and out, as in {EXAMPLE}"
    )
