"""Plotly figures: of what tools drew, and of the claims of a run. Plotly comes with the extra `review`."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from neuronaut.tools.errors import UserError

if TYPE_CHECKING:
    import plotly.graph_objects as go

Plot: TypeAlias = "go.Figure"
COLOURS = {"SUPPORTED": "#1a7f37", "PARTIAL": "#9a6700", "UNRESOLVED": "#8250df", "REFUTED": "#cf222e"}
LINE, LINES = 56, 3  # characters and lines of a sentence beside its score; the whole of it is shown on hovering
ROW, AROUND = 52, 130  # pixels
FEWEST_ROWS = 3


def plotly_figure(figure: Mapping[str, Any]) -> Plot:
    """A figure as tools keep it, {"data": …, "layout": …}. Refuses where Plotly is not installed."""
    return _graph_objects().Figure(data=figure["data"], layout=figure["layout"])


def score_plot(title: str, claims: Sequence[Mapping[str, Any]]) -> Plot:
    """The score of each claim with its interval, its null (an open diamond) and its best rival (a stroke); one panel a side.

    claims: rows with unit, side, status, sentence, metric, value, low, high, null, best_rival and best_rival_score.
    """
    go = _graph_objects()
    from plotly.subplots import make_subplots

    drawn = [claim for claim in claims if claim["value"] is not None]
    if not drawn:
        raise UserError("this run measured no score of a claim: there is nothing to plot")
    sides = list(dict.fromkeys(claim["side"] for claim in drawn))
    of_side = {side: [claim for claim in drawn if claim["side"] == side] for side in sides}
    panels = make_subplots(
        rows=len(sides), row_heights=[max(len(of_side[side]), FEWEST_ROWS) for side in sides], vertical_spacing=0.5 / (len(drawn) + 2)
    )  # fmt: skip
    for at, side in enumerate(sides, start=1):
        for trace in _traces(of_side[side], legend=at == 1):
            panels.add_trace(go.Scatter(**trace), row=at, col=1)
        rows = of_side[side]
        measure = f"{rows[0]['metric']} ({rows[0]['measured_in']})" if rows[0]["measured_in"] else rows[0]["metric"]
        panels.update_xaxes(title_text=_safe(f"{side}: {measure}"), rangemode="tozero", row=at, col=1)
        names = [_label(row) for row in rows]
        panels.update_yaxes(
            tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.5, -0.5], automargin=True, row=at, col=1
        )  # fmt: skip
    height = AROUND + sum(ROW * max(len(rows), FEWEST_ROWS) + 50 for rows in of_side.values())
    panels.update_layout(
        title_text=_safe(title), height=height, legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0}
    )
    return panels


def _traces(rows: Sequence[Mapping[str, Any]], *, legend: bool) -> list[dict[str, Any]]:
    told = [f"{row['status']}: {row['unit']} {row['sentence']}" for row in rows]
    up = [None if row["high"] is None else row["high"] - row["value"] for row in rows]
    down = [None if row["low"] is None else row["value"] - row["low"] for row in rows]
    scores = {
        "name": "score, 95 % interval", "x": [row["value"] for row in rows], "customdata": [_safe(text) for text in told],
        "marker": {"size": 11, "color": [COLOURS.get(row["status"], "#57606a") for row in rows]},
        "error_x": {"type": "data", "array": up, "arrayminus": down, "color": "#57606a"},
    }  # fmt: skip
    nulls = {
        "name": "null: other units", "x": [row["null"] for row in rows], "customdata": ["other units"] * len(rows),
        "marker": {"size": 9, "symbol": "diamond-open", "color": "#57606a"},
    }  # fmt: skip
    rivals = {
        "name": "best rival", "x": [row["best_rival_score"] for row in rows],
        "customdata": [_safe(f"best rival: {row['best_rival'] or 'none'}") for row in rows],
        "marker": {"size": 16, "symbol": "line-ns-open", "line": {"width": 2}, "color": "#c2410c"},
    }  # fmt: skip
    common = {
        "mode": "markers", "cliponaxis": False, "y": list(range(len(rows))), "showlegend": legend,
        "hovertemplate": "%{customdata}<br>%{x:.3g}<extra></extra>",
    }  # fmt: skip
    return [{**common, **trace, "legendgroup": trace["name"]} for trace in (scores, nulls, rivals)]


def _label(row: Mapping[str, Any]) -> str:
    lines = textwrap.wrap(f"{row['status']} {row['unit']} {row['sentence']}", LINE, max_lines=LINES, placeholder=" …")
    return "<br>".join(map(_safe, lines))


def _safe(text: str) -> str:
    """Text for Plotly, which takes some of it for markup."""
    from neuronaut.tools.drawn.svg import shown

    return shown(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _graph_objects() -> Any:
    try:
        import plotly.graph_objects
    except ImportError:
        raise UserError("plots need Plotly: `pip install 'neuronaut[review]'`; figures are kept as SVG too") from None
    return plotly.graph_objects
