"""Lines over numbers, with bands where intervals are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuronaut.tools.drawn.svg import (
    Axes,
    document,
    element,
    heading,
    hover,
    line_of_text,
    number,
    px,
    text_at,
    ticks,
    width_of,
)

WIDTH, HEIGHT = 520.0, 300.0  # pixels of the plot
DASHES = ("", "8 4", "2 3", "8 3 2 3", "12 4", "5 2")  # of the lines, so that colour is not needed to tell them apart


@dataclass(frozen=True)
class Series:
    """A line: x and y of equal length, with the ends of an interval at each point where there is one; its points alone where
    it is not joined."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    joined: bool = True

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.low) != len(self.high) or len(self.low) not in (0, len(self.x)):
            raise ValueError(f"{self.name}: x, y and the ends of the intervals must be equally long")


@dataclass(frozen=True)
class _Plot:
    """Where numbers lie on the page."""

    left: float
    top: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixels of a point."""
        across, up = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + WIDTH * across, self.top + HEIGHT * (1 - up)


def curve_svg(series: Sequence[Series], axes: Axes) -> str:
    """At most as many lines as there are dashes; points that are not finite break a line."""
    parts, least_width, top = heading(axes)
    names = series if len(series) > 1 else ()
    top += 16.0 * len(names) + 14
    plot = _Plot(
        78,
        top,
        _range([value for one in series for value in one.x]),
        _range([value for one in series for value in (*one.y, *one.low, *one.high)]),
    )
    parts += _ground(plot, axes)
    for at, one in enumerate(series):
        parts += _line(plot, one, at)
        if names:
            y = top - 16 * (len(names) - at) - 2
            ends = [(plot.left, y - 4), (plot.left + 34, y - 4)]
            parts += [_stroke(ends, at)] if one.joined else [_dot((plot.left + 17, y - 4), at, "")]
            parts.append(line_of_text(plot.left + 42, y, one.name, size=11))
    widest = max((42 + width_of(one.name) for one in names), default=0.0)
    width = max(plot.left + WIDTH + 24, least_width, plot.left + widest + 16)
    return document(width, top + HEIGHT + 46, parts, axes.title or "curve")


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [float(value) for value in values if np.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = 0.04 * (high - low) if high > low else max(abs(low), 1.0) / 2
    return low - room, high + room


def _ground(plot: _Plot, axes: Axes) -> list[str]:
    (left, bottom), (right, top) = plot.at(plot.x[0], plot.y[0]), plot.at(plot.x[1], plot.y[1])
    parts = []
    for value in ticks(*plot.x):
        x, _ = plot.at(value, plot.y[0])
        parts.append(element("line", x1=x, y1=top, x2=x, y2=bottom, class_="line-faint", stroke_width=0.5))
        parts.append(text_at(x, bottom + 16, number(value), anchor="middle", size=11))
    for value in ticks(*plot.y):
        _, y = plot.at(plot.x[0], value)
        parts.append(element("line", x1=left, y1=y, x2=right, y2=y, class_="line-faint", stroke_width=0.5))
        parts.append(text_at(left - 6, y + 4, number(value), anchor="end", size=11))
    if plot.y[0] < 0 < plot.y[1]:
        _, y = plot.at(plot.x[0], 0)
        parts.append(element("line", x1=left, y1=y, x2=right, y2=y, class_="line-ink", stroke_width=1))
    parts.append(element("rect", x=left, y=top, width=right - left, height=bottom - top, class_="line-faint"))
    parts.append(line_of_text((left + right) / 2, bottom + 36, axes.x, anchor="middle"))
    middle = (top + bottom) / 2
    side = line_of_text(18, middle, " · ".join(part for part in (axes.y, axes.unit) if part), anchor="middle")
    return [*parts, element("g", side, transform=f"rotate(-90 18 {px(middle)})")]


def _line(plot: _Plot, one: Series, number_of: int) -> list[str]:
    """The band, the line in pieces where points are missing, and a dot a point."""
    parts, pieces = [], [[]]  # type: ignore[var-annotated]
    for at, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
        if np.isfinite(x) and np.isfinite(y):
            pieces[-1].append(at)
        elif pieces[-1]:
            pieces.append([])
    for piece in pieces:
        known = [at for at in piece if one.low and np.isfinite(one.low[at]) and np.isfinite(one.high[at])]
        if len(known) > 1:
            ends = [plot.at(one.x[at], one.low[at]) for at in known]
            ends += [plot.at(one.x[at], one.high[at]) for at in reversed(known)]
            points = " ".join(f"{px(x)},{px(y)}" for x, y in ends)
            parts.append(element("polygon", points=points, class_=f"s{number_of}", fill_opacity="0.16"))
        if len(piece) > 1 and one.joined:
            parts.append(_stroke([plot.at(one.x[at], one.y[at]) for at in piece], number_of))
        for at in piece:
            x, y = plot.at(one.x[at], one.y[at])
            interval = f" [{number(one.low[at])}, {number(one.high[at])}]" if one.low else ""
            said = hover(f"{one.name}: {number(one.x[at])}, {number(one.y[at])}{interval}")
            parts.append(_dot((x, y), number_of, said))
    return parts


def _dot(at: tuple[float, float], number_of: int, said: str) -> str:
    return element("circle", said, cx=at[0], cy=at[1], r=3, class_=f"s{number_of}")


def _stroke(points: Sequence[tuple[float, float]], number_of: int) -> str:
    joined = " ".join(f"{px(x)},{px(y)}" for x, y in points)
    dashes = {"stroke_dasharray": DASHES[number_of]} if DASHES[number_of] else {}
    return element("polyline", points=joined, class_=f"line-s{number_of}", stroke_width=2, **dashes)
