"""What a run cost: one shape for questions, repeats and evaluations."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook


@dataclass(frozen=True)
class Cost:
    """Seconds, forward passes over one prompt, and what a language model was asked.

    seconds: None where they were not measured. usd: None where a call has no known price. The other values left out are
    those of a run that asks no language model.
    """

    forwards: float
    seconds: float | None = None
    tokens: int = 0
    llm_calls: int = 0
    maybe_billed_twice: int = 0
    usd: float | None = 0.0

    @classmethod
    def of(cls, notebook: Notebook, run: str, *, seconds: float, forwards: float) -> "Cost":
        """With the calls of the run, as the notebook has them."""
        calls = queries.calls(notebook, run)
        ends = [call["end"] for call in calls if call["end"]]
        prices: list[int | None] = [None if call["end"] is None else call["end"]["usd_micro"] for call in calls]
        return cls(
            forwards=round(forwards, 3),
            seconds=round(seconds, 3),
            tokens=sum((end["tokens_in"] or 0) + (end["tokens_out"] or 0) for end in ends),
            llm_calls=len(calls),
            maybe_billed_twice=sum(call["maybe_billed_twice"] is not None for call in calls),
            usd=None if None in prices else sum(filter(None, prices)) / 1e6,
        )

    @classmethod
    def stored(cls, text: str) -> "Cost":
        """As a notebook has it; earlier versions left out the calls of runs without a language model."""
        return cls(**json.loads(text))

    @property
    def fields(self) -> dict[str, Any]:
        """As it is stored and printed."""
        return asdict(self)
