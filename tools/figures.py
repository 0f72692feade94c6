"""Figures of what was found: grids, attention, curves and circuits, as SVG and (but for circuits) as Plotly JSON."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from neuronaut.tools.drawn.bars import Bar, bars_svg
from neuronaut.tools.drawn.curves import DASHES, Series, curve_svg
from neuronaut.tools.drawn.graphs import Arrow, Node, graph_svg
from neuronaut.tools.drawn.grids import grid_svg
from neuronaut.tools.drawn.svg import Axes, cut, shown

__all__ = [
    "Arrow",
    "Axes",
    "Bar",
    "Figure",
    "Node",
    "Series",
    "attention_map",
    "bars",
    "curve",
    "graph",
    "heat_map",
    "layer_map",
]

PLOTLY, SVG = "application/vnd.plotly.v1+json", "image/svg+xml"
COLOURS = [[0.0, "#f0883e"], [0.5, "#ffffff"], [1.0, "#1f6feb"]]


@dataclass(frozen=True)
class Figure:
    """A figure by its name, which files take too. plotly: {"data": …, "layout": …} or None; svg: a whole document."""

    name: str
    plotly: dict[str, Any] | None = field(repr=False)
    svg: str = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name, re.ASCII):
            raise ValueError(f"{self.name!r} is no name of a file")

    @property
    def address(self) -> str:
        """The drawing as a data URI: in an image, what is drawn can neither run nor style anything outside."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        return f'<img alt="{self.name}" style="max-width:100%" src="{self.address}">'


def heat_map(
    name: str,
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    axes: Axes,
    *,
    rising: bool = False,
) -> Figure:
    """A grid (rows, columns): blue above 0, orange below, paler towards 0; what is not finite stays empty.

    rising: the first row is at the bottom, as layers are drawn.
    """
    grid = np.asarray(values, dtype=np.float64)
    if grid.shape != (len(rows), len(columns)) or not grid.size:
        raise ValueError(f"a grid {grid.shape} needs as many labels, not {len(rows)} and {len(columns)}")
    most = float(np.abs(grid[np.isfinite(grid)]).max(initial=0.0)) or 1.0
    trace = {
        "type": "heatmap",
        "z": [_numbers(row) for row in grid],
        "x": list(range(len(columns))),
        "y": list(range(len(rows))),
        "zmin": -most,
        "zmax": most,
        "colorscale": COLOURS,
        "colorbar": {"title": {"text": _safe(axes.unit)}},
        "customdata": [[f"{_safe(row)} · {_safe(column)}" for column in columns] for row in rows],
        "hovertemplate": "%{customdata}<br>%{z:.4g}<extra></extra>",
        "hoverongaps": False,
    }
    layout = _layout(axes, x=_labels(columns), y=_labels(rows) | ({} if rising else {"autorange": "reversed"}))
    step = -1 if rising else 1
    return Figure(name, {"data": [trace], "layout": layout}, grid_svg(grid[::step], rows[::step], columns, axes))


def layer_map(name: str, values: ArrayLike, axes: Axes, columns: Sequence[str] = ()) -> Figure:
    """A grid (layer, column), the first layer at the bottom. columns: numbers, as of heads, where none are named."""
    grid = np.asarray(values, dtype=np.float64)
    names = columns or [str(at) for at in range(grid.shape[1])]
    return heat_map(name, grid, [f"layer {at}" for at in range(len(grid))], names, axes, rising=True)


def attention_map(name: str, pieces: Sequence[str], pattern: ArrayLike, axes: Axes) -> Figure:
    """A pattern (query, key): each row is where one token looks; keys behind the query stay empty."""
    grid = np.array(pattern, dtype=np.float64)
    grid[np.triu_indices(len(grid), 1)] = np.nan
    named = Axes(axes.title, axes.x or "key", axes.y or "query", axes.unit or "attention", axes.notes)
    return heat_map(name, grid, pieces, pieces, named)


def curve(name: str, series: Sequence[Series], axes: Axes) -> Figure:
    """Lines over numbers, with bands where intervals are given; at most 6 lines."""
    if not 1 <= len(series) <= len(DASHES):
        raise ValueError(f"{len(series)} lines cannot be told apart: give 1 to {len(DASHES)}")
    data = []
    for one, dashes in zip(series, DASHES, strict=False):
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines+markers" if one.joined else "markers",
            "name": _safe(one.name),
        }
        dash = ",".join(f"{length}px" for length in dashes.split()) or "solid"
        trace |= {"x": _numbers(one.x), "y": _numbers(one.y), "line": {"dash": dash}}
        if one.low:
            up, down = np.abs(np.subtract(one.high, one.y)), np.abs(np.subtract(one.low, one.y))
            trace["error_y"] = {"type": "data", "array": _numbers(up), "arrayminus": _numbers(down)}
        data.append(trace)
    layout = _layout(axes, x={}, y={}) | {"showlegend": len(series) > 1}
    return Figure(name, {"data": data, "layout": layout}, curve_svg(series, axes))


def bars(name: str, rows: Sequence[Bar], axes: Axes) -> Figure:
    """Named numbers as bars, the first on top, each with the range that it has elsewhere."""
    if not rows:
        raise ValueError("no bar to draw")
    names, values = [_safe(row.name) for row in rows], _numbers([row.value for row in rows])
    said = [[f"{row.low:.4g} to {row.high:.4g}"] for row in rows]
    hovered = "%{y}: %{x:.4g}<br>elsewhere %{customdata[0]}<extra></extra>"
    trace = {"type": "bar", "orientation": "h", "y": names, "x": values, "customdata": said, "hovertemplate": hovered}
    layout = _layout(Axes(axes.title, axes.unit, axes.y, "", axes.notes), x={}, y={"autorange": "reversed"})
    return Figure(name, {"data": [trace], "layout": layout}, bars_svg(rows, axes))


def graph(name: str, nodes: Sequence[Node], arrows: Sequence[Arrow], axes: Axes) -> Figure:
    """A layered circuit as SVG alone, what comes first below; arrows as wide as their weight, the rest on hovering."""
    names = {node.name for node in nodes}
    if len(names) != len(nodes) or not all({arrow.sender, arrow.receiver} <= names for arrow in arrows):
        raise ValueError("each node needs a name of its own, and each arrow two nodes")
    return Figure(name, None, graph_svg(nodes, arrows, axes))


def _numbers(values: ArrayLike) -> list[float | None]:
    """As JSON: six digits, None for what is not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64)]


def _safe(text: str) -> str:
    """Text for Plotly, which takes some of it for markup."""
    return shown(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _labels(names: Sequence[str]) -> dict[str, Any]:
    texts = [_safe(cut(shown(name))) for name in names]
    return {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": texts}


def _layout(axes: Axes, *, x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": {"text": "<br>".join(map(_safe, axes.lines))},
        "xaxis": {"title": {"text": _safe(axes.x)}, **x},
        "yaxis": {"title": {"text": _safe(" · ".join(part for part in (axes.y, axes.unit) if part))}, **y},
    }
