"""A grid of numbers as coloured cells: blue above 0, orange below, paler towards 0."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.drawn.svg import (
    Axes,
    cut,
    document,
    element,
    heading,
    hover,
    line_of_text,
    number,
    px,
    shown,
    text_at,
    width_of,
)

WIDEST = 760.0  # pixels that the cells of a row may take
WIDE, NARROW, HIGH = 46.0, 2.0, 26.0  # pixels of a cell
WRITTEN = 34.0  # pixels of a cell from which on its value is written into it
LABEL = 12.0  # pixels that a label needs


def grid_svg(grid: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], axes: Axes) -> str:
    """The first row on top. What is not finite stays empty."""
    n_rows, n_columns = grid.shape
    wide = min(WIDE, max(NARROW, WIDEST / n_columns))
    high = min(HIGH, max(wide, LABEL + 2))
    parts, least_width, top = heading(axes)
    longest = max(width_of(cut(shown(name))) for name in columns)
    every = max(1, int(np.ceil(LABEL / wide)))
    turned = longest > wide * every - 4
    left = 40 + max(width_of(cut(shown(name))) for name in rows)
    top += (0.77 * longest + 20) if turned else 26
    size = (wide * n_columns, high * n_rows)
    for at in range(0, n_columns, every):
        middle = left + wide * (at + 0.5) + 3 * turned
        anchor = "start" if turned else "middle"
        parts.append(text_at(middle, top - 6, columns[at], anchor=anchor, turned=turned, size=11))
    finite = grid[np.isfinite(grid)]
    most, digits = float(np.abs(finite).max(initial=0.0)) or 1.0, 0 if (finite == finite.round()).all() else 2
    for row, name in enumerate(rows):
        parts.append(text_at(left - 6, top + high * (row + 0.5) + 4, name, anchor="end", size=11))
        parts += [
            _cell(
                (left + wide * at, top + high * row, wide, high),
                float(value),
                most,
                digits,
                f"{shown(name)} · {shown(columns[at])}",
            )
            for at, value in enumerate(grid[row])
            if np.isfinite(value)
        ]
    parts.append(element("rect", x=left, y=top, width=size[0], height=size[1], class_="line-faint"))
    parts += _names(axes, (left + size[0] / 2, top + size[1] + 18), top + size[1] / 2)
    parts += _scale(left, top + size[1] + 30, float(np.nanmin(grid, initial=0.0)), most, axes.unit)
    width = max(left + size[0] + (0.64 * longest if turned else 0) + 16, left + 340, least_width)
    return document(width, top + size[1] + 52, parts, axes.title or "grid")


def _cell(place: tuple[float, float, float, float], value: float, most: float, digits: int, where: str) -> str:
    x, y, width, height = place
    colour, opacity = "minus" if value < 0 else "plus", f"{abs(value) / most:.3f}"
    said = hover(f"{where}: {number(value)}")
    box = element("rect", said, x=x, y=y, width=width, height=height, class_=colour, fill_opacity=opacity)
    if width < WRITTEN:
        return box
    short = f"{round(value, digits) + 0.0:.{digits}f}" if abs(value) < 100 else f"{value:.0f}"
    middle = {"x": x + width / 2, "y": y + height / 2 + 4, "font_size": 11.0}
    return box + element("text", short, class_="ink", text_anchor="middle", pointer_events="none", **middle)


def _names(axes: Axes, below: tuple[float, float], middle: float) -> list[str]:
    parts = [line_of_text(*below, axes.x, anchor="middle")] if axes.x else []
    if axes.y:
        side = line_of_text(16, middle, axes.y, anchor="middle")
        parts.append(element("g", side, transform=f"rotate(-90 16 {px(middle)})"))
    return parts


def _scale(x: float, y: float, low: float, most: float, unit: str) -> list[str]:
    """The colours with the numbers at their ends."""
    start, steps, parts = (-most if low < 0 else 0.0), 24, []
    for step in range(steps):
        value = start + (most - start) * (step + 0.5) / steps
        colour, opacity = "minus" if value < 0 else "plus", f"{abs(value) / most:.3f}"
        parts.append(element("rect", x=x + 5 * step, y=y, width=5, height=9, class_=colour, fill_opacity=opacity))
    parts.append(element("rect", x=x, y=y, width=5 * steps, height=9, class_="line-faint"))
    ends = f"{number(start)} to {number(most)}" + f" {unit}" * bool(unit)
    return [*parts, line_of_text(x + 5 * steps + 8, y + 9, ends, size=11)]
