"""Which unit a question names, and what is asked about it."""

import re
from typing import Literal

from neuronaut.agent.questions.question import CAN_ASK, Question
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

SHOWN = 300  # characters of a question that is not understood
FEATURE = r"sae:[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/\d{1,9}"
_NAMED_FEATURE = re.compile(rf"(?<![\w:]){FEATURE}(?!\w)")
_NAMED_IN_EXPERT = re.compile(
    r"\b(?:neuron\s+#?)?L?(\d+)\.E(\d+)\.N?(\d+)\b|\bL(\d+)E(\d+)N(\d+)\b|"
    r"\bneuron\s+#?(\d+)\s+(?:of|in)\s+expert\s+#?(\d+)\s+(?:of|in|from|at)\s+layer\s+(\d+)",
    re.IGNORECASE,
)
_NAMED_ROUTER = re.compile(r"\b(?:router\s+)?L?(\d+)\.R(?:outer\.?)?(\d+)\b|\brouter\s+L?(\d+)\.(\d+)\b", re.IGNORECASE)
_NAMED_NEURON = re.compile(
    r"\bL(\d+)\.?N(\d+)\b|\bneuron\s+#?L?(\d+)\s*[.:/]\s*N?(\d+)|\blayer\s+(\d+)[,\s]+neuron\s+#?(\d+)|"
    r"\bneuron\s+#?(\d+)\s+(?:of|in|from|at)\s+layer\s+(\d+)",
    re.IGNORECASE,
)
NAMED_HEAD = re.compile(
    r"\bL(\d+)\.?H(\d+)\b|\b(?:attention\s+)?heads?\s+#?L?(\d+)\s*[.:/\s]\s*H?(\d+)|\blayer\s+(\d+)[,\s]+head\s+#?(\d+)|"
    r"\bhead\s+#?(\d+)\s+(?:of|in|from|at)\s+layer\s+(\d+)",
    re.IGNORECASE,
)
BARE = re.compile(r"(?<![\w.-])(\d+)\.(\d+)(?![\w]|\.\d)")
_DOWNWARD = re.compile(r"\b(?:\d+\.(?:E\d+\.)?\d+|L\d+\.?(?:E\d+\.?)?N\d+)-(?!\w)", re.IGNORECASE)
_ROLE = re.compile(r"\b(?:needs?|needed|breaks?|without|lost|role)\b", re.IGNORECASE)


def names_a_unit(text: str, *, bare: bool = False) -> bool:
    """Whether a neuron, head or feature is named; bare: or two numbers with a dot, such as 8.481, that may be one."""
    named = (NAMED_HEAD, _NAMED_NEURON, _NAMED_IN_EXPERT, _NAMED_FEATURE, *((BARE,) if bare else ()))
    return any(one.search(text) is not None for one in named)


def about_a_unit(text: str, n_heads: int | None, d_mlp: int | None) -> Question:
    """What one unit does, or who needs it. Refuses none, several, and a bare `8.3` that could be a head or a neuron."""
    surely, bare = _named_units(text)
    found = surely | bare
    if not found:
        named = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
        raise UserError(f"{named!r} names no neuron, head, prompt or task: {CAN_ASK}")
    if len(found) > 1:
        names = ", ".join(unit.address for unit in sorted(found))
        raise UserError(f"the question names {len(found)} units ({names}): ask about one at a time")
    (unit,) = found
    role = _ROLE.search(text) is not None
    if unit.kind in ("head", "feature", "router"):  # a feature or a share is never below 0: it has one side
        return Question(text, "explain", unit, (1,), role=role)
    said = unit in surely or re.search(r"\bneurons?\b", text, re.IGNORECASE)
    if not said and _could_be_head(unit, n_heads, d_mlp):
        raise UserError(
            f"{unit.address} could be neuron {unit.address} or head L{unit.layer}H{unit.index}: "
            f"write 'neuron {unit.address}' or 'head {unit.address}'"
        )
    return Question(text, "explain", unit, (-1,) if _DOWNWARD.search(text) else (1, -1), role=role)


def _named_units(text: str) -> tuple[set[Unit], set[Unit]]:
    """Units that are named as what they are, and those of two bare numbers, read as neurons."""
    features = {Unit.parse(match[0]) for match in _NAMED_FEATURE.finditer(text)}
    others = _NAMED_FEATURE.sub(" ", text)
    experts = {_in_expert(match) for match in _NAMED_IN_EXPERT.finditer(others)}
    routers = {Unit("router", layer, at) for layer, at in map(_numbers, _NAMED_ROUTER.finditer(others))}
    others = _NAMED_ROUTER.sub(" ", _NAMED_IN_EXPERT.sub(" ", others))
    neurons = {_unit("neuron", match) for match in _NAMED_NEURON.finditer(others)}
    heads = {_unit("head", match) for match in NAMED_HEAD.finditer(others)}
    rest = NAMED_HEAD.sub(" ", _NAMED_NEURON.sub(" ", others))
    bare = {Unit("neuron", int(match[1]), int(match[2])) for match in BARE.finditer(rest)}
    return neurons | heads | features | experts | routers, bare


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(group) for group in match.groups() if group is not None]


def _in_expert(match: re.Match[str]) -> Unit:
    """A neuron of an expert."""
    first, expert, last = _numbers(match)
    layer, index = (last, first) if match.group(9) else (first, last)
    return Unit("neuron", layer, index, expert=expert)


def _unit(kind: Literal["neuron", "head"], match: re.Match[str]) -> Unit:
    first, second = _numbers(match)
    swapped = match.group(7) is not None  # "neuron 481 of layer 8"
    return Unit(kind, second, first) if swapped else Unit(kind, first, second)


def _could_be_head(unit: Unit, n_heads: int | None, d_mlp: int | None) -> bool:
    return n_heads is not None and unit.index < n_heads and (d_mlp is None or unit.index < d_mlp)
