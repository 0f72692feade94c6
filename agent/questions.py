"""From the words of a question to an intent and its units, or a sentence that says what can be asked."""

import re
from dataclasses import dataclass
from typing import Literal

from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

CAN_ASK = 'ask about one neuron, for example: neuronaut ask "what does neuron 8.481 do"'
_NAMED_NEURON = re.compile(
    r"\bL(\d+)\.?N(\d+)\b|\bneuron\s+#?L?(\d+)\s*[.:/]\s*N?(\d+)|\blayer\s+(\d+)[,\s]+neuron\s+#?(\d+)|"
    r"\bneuron\s+#?(\d+)\s+(?:of|in|from|at)\s+layer\s+(\d+)",
    re.IGNORECASE,
)
_HEAD = re.compile(r"\bL(\d+)\.?H(\d+)\b|\bheads?\s+L?(\d+)[.:\s]H?(\d+)", re.IGNORECASE)
_BARE = re.compile(r"(?<![\w.-])(\d+)\.(\d+)(?![\w]|\.\d)")
_DOWNWARD = re.compile(r"\b(?:\d+\.\d+|L\d+\.?N\d+)-(?!\w)")


@dataclass(frozen=True)
class Question:
    """What is asked: the unit, and which of its signs (both unless one is named)."""

    text: str
    intent: Literal["explain"]
    unit: Unit
    signs: tuple[Literal[1, -1], ...]


def parse_question(text: str, *, n_heads: int | None = None, d_mlp: int | None = None) -> Question:
    """The question about one neuron that `text` asks.

    n_heads, d_mlp: of the target, where known: a bare `8.3` that could be a head or a neuron is refused.
    Refuses: no unit, several units, heads (not answered yet), in one sentence each.
    """
    if not text.strip():
        raise UserError(f"the question is empty: {CAN_ASK}")
    named = [_named(match) for match in _NAMED_NEURON.finditer(text)]
    heads = [tuple(int(g) for g in m.groups() if g is not None) for m in _HEAD.finditer(text)]
    bare = [(int(m[1]), int(m[2])) for m in _BARE.finditer(_HEAD.sub(" ", _NAMED_NEURON.sub(" ", text)))]
    found = set(named) | {Unit("neuron", layer, index) for layer, index in bare}
    if heads:
        layer, index = heads[0]
        raise UserError(f"head L{layer}H{index} cannot be explained yet, only neurons can: {CAN_ASK}")
    if not found:
        raise UserError(f"{text!r} names no neuron: {CAN_ASK}")
    if len(found) > 1:
        names = ", ".join(unit.address for unit in sorted(found))
        raise UserError(f"the question names {len(found)} neurons ({names}): ask about one at a time")
    unit = found.pop()
    if not named and _could_be_head(unit, n_heads, d_mlp) and not re.search(r"\bneurons?\b", text, re.IGNORECASE):
        raise UserError(
            f"{unit.address} could be neuron {unit.address} or head L{unit.layer}H{unit.index}: "
            f"write 'neuron {unit.address}' or 'head {unit.address}'"
        )
    return Question(text.strip(), "explain", unit, (-1,) if _DOWNWARD.search(text) else (1, -1))


def _named(match: re.Match[str]) -> Unit:
    first, second = (int(group) for group in match.groups() if group is not None)
    swapped = match.group(7) is not None  # "neuron 481 of layer 8"
    return Unit("neuron", second, first) if swapped else Unit("neuron", first, second)


def _could_be_head(unit: Unit, n_heads: int | None, d_mlp: int | None) -> bool:
    return n_heads is not None and unit.index < n_heads and (d_mlp is None or unit.index < d_mlp)
