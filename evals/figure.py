"""A share against a number of items, drawn as SVG: labelled lines with intervals, in the reader's light or dark colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 190, 16, 44  # the labels stand to the right
TICKS = (1, 2, 5, 10, 20, 50, 100)
LABEL_GAP = 17
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#8a6fd1",
    "#7f7f7f",
)  # told apart by colour-blind eyes
_STYLE = """svg { background: #fff; color: #222; font: 13px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { background: #16181c; color: #ddd } }
text { fill: currentColor } .axis { stroke: currentColor; stroke-opacity: .25 }"""


@dataclass(frozen=True)
class Line:
    """One way: shares at some numbers of items, each with its interval. strong: drawn thicker, its interval as a band."""

    label: str
    items: Sequence[int]
    shares: Sequence[float]
    intervals: Sequence[tuple[float, float]]
    strong: bool = False


def curve_svg(lines: Sequence[Line]) -> str:
    """The drawing: items on a logarithmic axis, shares from 0 to 1; the lines' intervals also stand in their titles."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<style>{_STYLE}</style>",
        *_axes(),
        *(_drawn(line, COLOURS[number % len(COLOURS)]) for number, line in enumerate(lines)),
        *_labels(lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _x(items: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * log(items) / log(TICKS[-1])


def _y(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _axes() -> list[str]:
    found = []
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = _y(share)
        found.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        found.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    found += [f'<text x="{_x(n):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n}</text>' for n in TICKS]
    middle = (LEFT + WIDTH - RIGHT) / 2
    found.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">items at most</text>')
    return found


def _drawn(line: Line, colour: str) -> str:
    """The line, and its intervals: a band around a strong one, bars at the others' points."""
    points = " ".join(f"{_x(n):.1f},{_y(share):.1f}" for n, share in zip(line.items, line.shares, strict=True))
    spans = [(n, low, high) for n, (low, high) in zip(line.items, line.intervals, strict=True)]
    if line.strong:
        edge = [(n, high) for n, _, high in spans] + [(n, low) for n, low, _ in reversed(spans)]
        band = " ".join(f"{_x(n):.1f},{_y(share):.1f}" for n, share in edge)
        around = f'<polygon points="{band}" fill="{colour}" fill-opacity=".18"/>'
    else:
        bars = " ".join(f"M{_x(n):.1f} {_y(low):.1f}V{_y(high):.1f}" for n, low, high in spans)
        around = f'<path d="{bars}" stroke="{colour}" stroke-opacity=".35"/>'
    said = "; ".join(
        f"{n} items {s:.3f} ({low:.3f}-{high:.3f})" for s, (n, low, high) in zip(line.shares, spans, strict=True)
    )
    width = 3 if line.strong else 1.5
    return (
        f"<g><title>{escape(line.label)}: {said}</title>{around}"
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/></g>'
    )


def _labels(lines: Sequence[Line]) -> list[str]:
    """The lines' names beside their ends, moved apart where they would meet."""
    order = sorted(range(len(lines)), key=lambda number: (-lines[number].shares[-1], number))
    heights: list[float] = []
    for number in order:
        wanted = _y(lines[number].shares[-1])
        heights.append(max(wanted, heights[-1] + LABEL_GAP) if heights else wanted)
    low = max(0.0, heights[-1] - (HEIGHT - BOTTOM)) if heights else 0.0
    return [
        f'<text x="{WIDTH - RIGHT + 8}" y="{y - low + 4:.1f}" style="fill: {COLOURS[number % len(COLOURS)]}">'
        f"{escape(lines[number].label)} {lines[number].shares[-1]:.0%}</text>"
        for number, y in zip(order, heights, strict=True)
    ]
