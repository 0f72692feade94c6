"""Numbers, times and foreign text as pages show them. What was not measured says so."""

import datetime
import json
from typing import Any

from markupsafe import Markup, escape

from neuronaut.tools.shown import visible

NOT_MEASURED = "not measured"
_CROCKFORD = {letter: value for value, letter in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_TIME = 10  # characters of a ULID that say when it was made


def number(value: float | None) -> str:
    """Four digits; thousands apart; "not measured" of None."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, int) or (abs(value) >= 1000 and abs(value) < 1e9):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def interval(low: float | None, high: float | None) -> str:
    """A 95 % interval, "" where n carries none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def duration(seconds: float | None) -> str:
    """A span of time as people say it: 0.4 s, 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def dollars(micro: float | None) -> str:
    """Millionths of a dollar as dollars; an unknown price is no zero."""
    if micro is None:
        return "price unknown"
    return f"${micro / 1e6:,.4f}" if 0 < micro < 1e6 else f"${micro / 1e6:,.2f}"


def milliseconds(identifier: str) -> int | None:
    """When a record was made, from its id, in milliseconds since 1970; None where the id holds no time."""
    head = identifier[:_TIME]
    if len(identifier) != 26 or any(letter not in _CROCKFORD for letter in head):
        return None
    value = 0
    for letter in head:
        value = value * 32 + _CROCKFORD[letter]
    return value if value < 2**47 else None


def when(identifier: str) -> str:
    """When a record was made, to the second, UTC; "" where its id holds no time."""
    made = milliseconds(identifier)
    if made is None:
        return ""
    return datetime.datetime.fromtimestamp(made / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def lines(text: str) -> Markup:
    """Text of several lines, for <pre>: each line escaped, its control characters visible."""
    return Markup("\n").join(escape(visible(line)) for line in text.split("\n"))


def pretty(value: Any) -> str:
    """A value as JSON that people read; text that holds JSON as that JSON."""
    if isinstance(value, str) and value[:1] in "{[":
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def cut(text: str, longest: int) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
