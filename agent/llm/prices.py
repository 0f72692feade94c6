"""What a call costs, from a table of prices that the user keeps; an unknown price is None, never 0."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from neuronaut.agent.llm.base import Reply
from neuronaut.tools.errors import UserError


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens by model name: (input, cached input, output). `date` says when they were noted."""

    date: str
    per_million: dict[str, tuple[float, float, float]]

    def micro_dollars(self, reply: Reply) -> int | None:
        """The price of a reply in millionths of a dollar; None where the model or a count is unknown."""
        price = self.per_million.get(reply.model)
        if price is None or reply.tokens_in is None or reply.tokens_out is None:
            return None
        cached = reply.tokens_cached or 0
        counts = (reply.tokens_in - cached, cached, reply.tokens_out)
        return round(sum(count * dollars for count, dollars in zip(counts, price, strict=True)))


def read_prices() -> Prices:
    """The table that $NEURONAUT_PRICES names, JSON {"date": …, "per_million": {model: [in, cached, out]}}; else an empty one."""
    path = os.environ.get("NEURONAUT_PRICES")
    if path is None:
        return Prices("none", {})
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = {str(name): (float(a), float(b), float(c)) for name, (a, b, c) in table["per_million"].items()}
        return Prices(str(table["date"]), rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the price table {path!r} cannot be read ({error}): see docs/language-models.md") from None
