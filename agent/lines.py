"""What the lines about any experiment share: the type of what they are told, and how intervals and missing numbers are written."""

from collections.abc import Mapping, Sequence
from typing import Any

Payload = Mapping[str, Any]


def interval(ends: Sequence[float] | None, form: str = ".2f") -> str:
    """ " [low, high]"; nothing where there is none."""
    return "" if ends is None else f" [{ends[0]:{form}}, {ends[1]:{form}}]"


def number(value: float | None) -> str:
    """Two digits; "none" where there is nothing to compare with."""
    return "none" if value is None else f"{value:.2f}"
