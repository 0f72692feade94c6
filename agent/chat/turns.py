"""Turns of a conversation as plain data, which checkpoints keep, and as a language model is sent them."""

from collections.abc import Sequence
from typing import Any

from neuronaut.agent.llm.base import Call, Said, Told, Turn

LONGEST = 60_000  # characters of all turns; in longer conversations the oldest results are left out
LEFT_OUT = "(left out, since the conversation is long; show_record gives records again)"


def as_value(turn: Turn) -> dict[str, Any]:
    """A turn as plain data."""
    if isinstance(turn, Told):
        return {"text": turn.text, "results": [list(one) for one in turn.results]}
    return {"text": turn.text, "calls": [as_call(call) for call in turn.calls]}


def as_call(call: Call) -> dict[str, str]:
    """A call as plain data."""
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def as_turns(values: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    """The turns, of which the oldest results are left out where all together are too long."""
    left = max(0, sum(_size(value) for value in values) - LONGEST)
    turns: list[Turn] = []
    for value in values:
        if "calls" in value:
            turns.append(Said(value["text"], tuple(Call(**call) for call in value["calls"])))
            continue
        results = [(name, text) for name, text in value["results"]]
        if left > 0 and results:
            left -= sum(len(text) for _, text in results)
            results = [(name, LEFT_OUT) for name, _ in results]
        turns.append(Told(value["text"], tuple(results)))
    return tuple(turns)


def _size(value: dict[str, Any]) -> int:
    inner = [text for _, text in value.get("results", ())] + [call["arguments"] for call in value.get("calls", ())]
    return len(value["text"]) + sum(map(len, inner))
