"""What a run cost: one shape for questions, repeats and evaluations."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from neuronaut.agent.llm.counting import most_tokens_in
from neuronaut.agent.llm.prices import dollars
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook


@dataclass(frozen=True)
class Cost:
    """Seconds, forward passes over one prompt, and what a language model was asked.

    seconds: None where they were not measured. uncounted: calls whose tokens are not known, counted in `tokens` at a high
    estimate. usd: None where a call has no known price. The other values left out are those of a run that asks no language
    model.
    """

    forwards: float
    seconds: float | None = None
    tokens: int = 0
    llm_calls: int = 0
    uncounted: int = 0
    maybe_billed_twice: int = 0
    usd: float | None = 0.0

    @classmethod
    def of(cls, notebook: Notebook, run: str, *, seconds: float, forwards: float, priced: bool = True) -> "Cost":
        """With the calls of the run, as the notebook has them. priced: whether the price of the language model is known."""
        calls = queries.calls(notebook, run)
        counts = [_tokens(call) for call in calls]
        prices: list[int | None] = [None if call["end"] is None else call["end"]["usd_micro"] for call in calls]
        prices += [None for call in calls if not priced and _unbilled(call)]
        return cls(
            forwards=round(forwards, 3),
            seconds=round(seconds, 3),
            tokens=sum(tokens for tokens, _ in counts),
            llm_calls=len(calls),
            uncounted=sum(not known for _, known in counts),
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


def _unbilled(call: dict[str, Any]) -> bool:
    """The call failed and cost nothing."""
    end = call["end"]
    return end is not None and end["response"] is None and end["usd_micro"] == 0


def _tokens(call: dict[str, Any]) -> tuple[int, bool]:
    """Tokens in and out of a call, and whether both are known; what is not known counts at its high estimate, as in a budget."""
    if _unbilled(call):
        return 0, True
    end, body = call["end"] or {"tokens_in": None, "tokens_out": None}, json.loads(call["request"])
    n_in, n_out = end["tokens_in"], end["tokens_out"]
    most = (most_tokens_in(body) if n_in is None else n_in) + (int(body["max_tokens"]) if n_out is None else n_out)
    return most, None not in (n_in, n_out)


def asked(cost: dict[str, Any]) -> str:
    """What a language model was asked, in a few words: "3 language-model calls (5,120 tokens, $0.0123)"."""
    calls = f"{cost['llm_calls']:,} language-model call" + ("" if cost["llm_calls"] == 1 else "s")
    most = "at most " if cost["uncounted"] else ""
    paid = "price unknown" if cost["usd"] is None else dollars(cost["usd"])
    twice = f", {cost['maybe_billed_twice']:,} maybe billed twice" if cost["maybe_billed_twice"] else ""
    return f"{calls} ({most}{cost['tokens']:,} tokens, {paid}{twice})"
