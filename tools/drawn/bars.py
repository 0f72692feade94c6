"""Named numbers as bars from a common 0, each beside the range that it has elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuronaut.tools.drawn.svg import Axes, document, element, heading, hover, line_of_text, number, text_at, width_of

HIGH, THICK, WIDTH = 22.0, 12.0, 420.0  # pixels of a row, of a bar, and of all numbers


@dataclass(frozen=True)
class Bar:
    """A number by its name. low, high: where it lies elsewhere."""

    name: str
    value: float
    low: float
    high: float


def bars_svg(bars: Sequence[Bar], axes: Axes) -> str:
    """The first bar on top; a grey band behind each where its number lies elsewhere."""
    parts, least_width, top = heading(axes)
    top += 8
    ends = [0.0, *(end for bar in bars for end in (bar.value, bar.low, bar.high) if np.isfinite(end))]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    left = 24 + max(width_of(bar.name) for bar in bars)

    def at(value: float) -> float:
        return left + WIDTH * (value - low) / span

    for row, bar in enumerate(bars):
        y = top + HIGH * row
        said = f"{bar.name}: {number(bar.value)}, elsewhere {number(bar.low)} to {number(bar.high)}"
        wide = max(1.0, at(bar.high) - at(bar.low))
        band = element(
            "rect", hover(said), x=at(bar.low), y=y + 1, width=wide, height=HIGH - 2, class_="faint", fill_opacity="0.6"
        )
        parts.append(band)
        start, end = sorted((at(0.0), at(bar.value)))
        colour = "minus" if bar.value < 0 else "plus"
        parts.append(
            element(
                "rect", hover(said), x=start, y=y + (HIGH - THICK) / 2, width=end - start, height=THICK, class_=colour
            )
        )
        parts.append(text_at(left - 6, y + HIGH / 2 + 4, bar.name, anchor="end", size=11))
        parts.append(line_of_text(left + WIDTH + 8, y + HIGH / 2 + 4, number(bar.value), size=11))
    bottom = top + HIGH * len(bars)
    parts.append(element("line", x1=at(0.0), y1=top, x2=at(0.0), y2=bottom, class_="line-ink", stroke_width=1))
    parts.append(line_of_text(left + WIDTH / 2, bottom + 18, axes.unit, size=11, anchor="middle"))
    return document(max(left + WIDTH + 80, least_width), bottom + 32, parts, axes.title or "bars")
