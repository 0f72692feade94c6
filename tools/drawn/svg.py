"""SVG text of figures: self-contained, readable on light and dark ground, the same for the same input."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CHARACTER = 6.6  # pixels of a character of 12 px text, about; wide ones take twice as many
LONGEST = 18  # characters of a label; the whole of it is shown on hovering
_LIGHT = {
    "paper": "#ffffff", "ink": "#1b1f24", "faint": "#c4ccd4", "plus": "#4c9bf5", "minus": "#f0883e",
    "s0": "#1f6feb", "s1": "#c2410c", "s2": "#15803d", "s3": "#7e22ce", "s4": "#a16207", "s5": "#0e7490",
}  # fmt: skip
_DARK = {
    "paper": "#0d1117", "ink": "#e6edf3", "faint": "#4b5563", "plus": "#1f6feb", "minus": "#b8500f",
    "s0": "#6cb0ff", "s1": "#ff9b5e", "s2": "#4ade80", "s3": "#c99bff", "s4": "#e3b341", "s5": "#39c5cf",
}  # fmt: skip
_STEERING = ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")
_SHOWN = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True)
class Axes:
    """What a figure is called, what its axes and numbers are, and lines below the title."""

    title: str = ""
    x: str = ""
    y: str = ""
    unit: str = ""
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The title and the notes, empty ones left out."""
        return [line for line in (self.title, *self.notes) if line]


def shown(text: str) -> str:
    """The text with white space at its ends, line ends, control and format characters as symbols."""
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" ")) if inner else len(text)
    after = len(text) - before - len(inner)
    return "·" * before + "".join(map(_symbol, inner)) + "·" * after


def _symbol(character: str) -> str:
    if character in _SHOWN:
        return _SHOWN[character]
    return f"\\u{ord(character):04x}" if unicodedata.category(character) in _STEERING else character


def number(value: float) -> str:
    """Four digits; "none" of what is not finite."""
    return f"{value + 0.0:.4g}" if math.isfinite(value) else "none"


def cut(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def width_of(text: str) -> float:
    """Pixels that a line of 12 px text takes, about."""
    return CHARACTER * sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def px(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}"


def element(name: str, /, content: str | None = None, **attributes: str | float) -> str:
    """An element; `content` is markup already. Numbers are coordinates; `class_` is class, `_` is "-" in names."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value) if isinstance(value, str) else px(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{pairs}/>" if content is None else f"<{name}{pairs}>{content}</{name}>"


def hover(text: str) -> str:
    """What is shown when the pointer rests on an element."""
    return element("title", escape(shown(text)))


def text_at(x: float, y: float, text: str, *, anchor: str = "start", size: float = 12, turned: bool = False) -> str:
    """A label, escaped and cut; the whole of it on hovering. turned: rising to the right."""
    whole = shown(text)
    full = hover(text) if len(whole) > LONGEST else ""
    more = {"transform": f"rotate(-50 {px(x)} {px(y)})"} if turned else {}
    return element(
        "text", escape(cut(whole)) + full, x=x, y=y, class_="ink", text_anchor=anchor, font_size=size, **more
    )


def line_of_text(x: float, y: float, text: str, *, size: float = 12, anchor: str = "start") -> str:
    """A line that is not cut, escaped."""
    return element("text", escape(shown(text)), x=x, y=y, class_="ink", text_anchor=anchor, font_size=size)


def heading(axes: Axes) -> tuple[list[str], float, float]:
    """Title and notes, and the width and height that they take."""
    lines = axes.lines
    parts = [line_of_text(12, 22 + 17 * at, line, size=13 if at == 0 else 11) for at, line in enumerate(lines)]
    return parts, 24 + max((1.1 * width_of(line) for line in lines), default=0.0), 12.0 + 17 * len(lines)


def document(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """The whole SVG. Its colours follow the reader's preference for light or dark."""
    style = _rules(_LIGHT) + "@media (prefers-color-scheme: dark){" + _rules(_DARK) + "}"
    head = element("title", escape(shown(title))) + element("style", style)
    ground = element("rect", x=0, y=0, width=width, height=height, class_="paper")
    return element(
        "svg",
        "\n".join([head, ground, *parts]) + "\n",
        xmlns="http://www.w3.org/2000/svg",
        class_="neuronaut-figure",
        viewBox=f"0 0 {px(width)} {px(height)}",
        width=width,
        height=height,
        role="img",
        font_family="system-ui, sans-serif",
    )


def _rules(colours: dict[str, str]) -> str:
    fills = "".join(f".neuronaut-figure .{name}{{fill:{value}}}" for name, value in colours.items())
    lines = "".join(f".neuronaut-figure .line-{name}{{stroke:{value};fill:none}}" for name, value in colours.items())
    return fills + lines


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most`."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [at * step for at in range(first, last + 1)]
