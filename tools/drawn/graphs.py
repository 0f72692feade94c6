"""A layered circuit: what comes first below, nodes of a layer side by side, arrows as wide as their weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuronaut.tools.drawn.svg import Axes, cut, document, element, heading, hover, number, px, shown, text_at, width_of

APART, ABOVE, TALL = 16.0, 64.0, 24.0  # pixels between nodes, from row to row, and of a node
WIDEST = 7.0  # pixels of the strongest arrow
BOW = 70.0  # pixels to the side of an arrow that passes one row, times the root of their number
SWEEPS = 8  # over the rows, each of which puts nodes near those that they are joined to


@dataclass(frozen=True)
class Node:
    """A part of a circuit by its name. layer: what has more is drawn higher; whole ones from 0 on are written at the side,
    so that MLPs may stand at halves, embeddings at -1 and logits at a half above the last layer."""

    name: str
    layer: float
    hover: str = ""


@dataclass(frozen=True)
class Arrow:
    """From one node to another by name; its width is the size of the weight, its colour the sign."""

    sender: str
    receiver: str
    weight: float
    hover: str = ""


def graph_svg(nodes: Sequence[Node], arrows: Sequence[Arrow], axes: Axes) -> str:
    """The drawing; rows are ordered so that joined nodes stand near each other."""
    rows = _ordered(nodes, arrows)
    sizes = {node.name: 20 + width_of(cut(shown(node.name))) for node in nodes}
    widths = [sum(sizes[one] for one in row) + APART * (len(row) - 1) for row in rows.values()]
    parts, least_width, top = heading(axes)
    beside = 0.75 * BOW * (len(rows) - 2) ** 0.5 if len(rows) > 2 else 0.0
    left = 30 + max((width_of(_level(layer)) for layer in rows), default=0.0) + beside
    whole = max(widths, default=0.0)
    places: dict[str, tuple[float, float]] = {}
    for up, ((layer, row), wide) in enumerate(zip(rows.items(), widths, strict=True)):
        x, y = left + (whole - wide) / 2, top + 30 + ABOVE * (len(rows) - 1 - up)
        parts.append(text_at(12, y + 4, _level(layer), size=11))
        for name in row:
            places[name] = (x + sizes[name] / 2, y)
            x += sizes[name] + APART
    most = max((abs(arrow.weight) for arrow in arrows), default=0.0) or 1.0
    parts += [_arrow(places[a.sender], places[a.receiver], a, most) for a in sorted(arrows, key=_weakest_first)]
    parts += [_node(places[node.name], sizes[node.name], node) for node in nodes]
    height = top + 30 + ABOVE * max(0, len(rows) - 1) + 36
    return document(max(left + whole + beside + 24, least_width), height, parts, axes.title or "circuit")


def _weakest_first(arrow: Arrow) -> tuple[float, str, str]:
    return abs(arrow.weight), arrow.sender, arrow.receiver


def _level(layer: float) -> str:
    return f"layer {layer:g}" if layer == int(layer) and layer >= 0 else ""


def _ordered(nodes: Sequence[Node], arrows: Sequence[Arrow]) -> dict[float, list[str]]:
    """The names of each row, rows rising. Sugiyama et al. 1981: each row by the mean place of its neighbours."""
    rows: dict[float, list[str]] = {}
    for node in sorted(nodes, key=lambda one: one.layer):
        rows.setdefault(node.layer, []).append(node.name)
    near: dict[str, list[str]] = {node.name: [] for node in nodes}
    for arrow in arrows:
        near[arrow.sender].append(arrow.receiver)
        near[arrow.receiver].append(arrow.sender)
    for sweep in range(SWEEPS):
        for layer in sorted(rows, reverse=bool(sweep % 2)):
            places = {name: (at + 0.5) / len(row) for row in rows.values() for at, name in enumerate(row)}
            rows[layer].sort(key=lambda name: _middle(name, near, places))
    return rows


def _middle(name: str, near: Mapping[str, Sequence[str]], places: Mapping[str, float]) -> float:
    joined = near[name]
    return sum(places[one] for one in joined) / len(joined) if joined else places[name]


def _node(place: tuple[float, float], width: float, node: Node) -> str:
    x, y = place
    said = hover(f"{node.name}: {node.hover}" if node.hover else node.name)
    shape = {"x": x - width / 2, "y": y - TALL / 2, "width": width, "height": TALL, "rx": 6.0}
    ground, frame = (element("rect", None, **shape, class_=name) for name in ("paper", "line-ink"))
    return element("g", said + ground + frame + text_at(x, y + 4, node.name, anchor="middle"))


def _arrow(start: tuple[float, float], end: tuple[float, float], arrow: Arrow, most: float) -> str:
    """A curve upwards, bent to the side where it passes rows; between nodes of one row an arc above them."""
    (x1, y1), (x2, y2) = start, end
    side = 0.0
    if y1 == y2:
        y1, y2 = y1 - TALL / 2, y2 - TALL / 2
        bend = (y1 - ABOVE / 2, y2 - ABOVE / 2)
    else:
        up = 1 if y1 > y2 else -1
        passed = abs(y1 - y2) / ABOVE - 1
        side = (1 if x1 <= x2 else -1) * BOW * passed**0.5 if passed > 0.5 else 0.0
        y1, y2 = y1 - up * TALL / 2, y2 + up * TALL / 2
        bend = ((y1 + y2) / 2, (y1 + y2) / 2)
    path = f"M{px(x1)} {px(y1)}C{px(x1 + side)} {px(bend[0])} {px(x2 + side)} {px(bend[1])} {px(x2)} {px(y2)}"
    said = f"{arrow.sender} to {arrow.receiver}: {number(arrow.weight)}" + f" · {arrow.hover}" * bool(arrow.hover)
    colour = "line-minus" if arrow.weight < 0 else "line-plus"
    width = max(1.0, WIDEST * abs(arrow.weight) / most)
    return element("path", hover(said), d=path, class_=colour, stroke_width=width, stroke_opacity="0.8")
