"""Answers, tables and results of tools as HTML for Jupyter: escaped, without scripts, readable on light and dark ground.

Styles stand in the elements, since some viewers drop style sheets. Text takes the ink of the page; grounds are see-through.
"""

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from neuronaut.agent.known import known_line
from neuronaut.agent.label.summary import facts_of
from neuronaut.agent.view import visible

if TYPE_CHECKING:
    from neuronaut.agent.api.answers import Answer, Claim
    from neuronaut.agent.api.batches import Batch
    from neuronaut.agent.api.outputs import ToolOutput
    from neuronaut.agent.api.tables import Table

# White text on each has a contrast of at least 4.5.
GROUNDS = {
    "SUPPORTED": "#1a7f37", "PARTIAL": "#9a6700", "UNRESOLVED": "#8250df", "REFUTED": "#cf222e", "ABSTAINED": "#57606a",
    "MEASURED": "#0969da",
}  # fmt: skip
_DIM, _FRAME = "opacity:.75;font-size:.9em", "border:1px solid rgba(128,128,128,.4);border-radius:6px"
_BOX = f"{_FRAME};padding:.6em .8em;margin:.4em 0;max-width:60em;line-height:1.45"
_CELL = "padding:.15em .6em;text-align:{};vertical-align:top;border-bottom:1px solid rgba(128,128,128,.25)"
SHOWN_ROWS, FEW_ROWS = 40, 12  # of a table, and of one among others
LONGEST_CELL = 120  # characters


def safe(text: object) -> str:
    """Text that nobody vouches for: control characters visible, markup escaped."""
    return html.escape(visible(str(text)))


def answer_html(answer: "Answer") -> str:
    """Claims first, each with its numbers; then what is left over, figures, cost and where it is kept."""
    parts = [
        f'<div style="font-weight:600">{safe(answer.question)} <span style="{_DIM}">· {safe(answer.model)}</span></div>'
    ]
    seen: set[tuple[str, str]] = set()
    for claim in answer.claims:
        first = (claim.unit, claim.side) not in seen
        seen.add((claim.unit, claim.side))
        parts.append(_claim(claim, first=first))
        if first and claim.side == "reads":
            parts += _contexts(answer.json["examples"].get(claim.unit, ()))
    for outcome in answer.json["outcomes"]:
        parts.append(_line(outcome["status"], f"{outcome['unit']} {outcome['side']}: {outcome['reason']}"))
    for found in answer.json["measured"]:
        lines = "<br>".join(safe(line) for line in found["lines"])
        parts.append(
            f'<div style="margin:.4em 0">{badge("MEASURED")} {safe(found["title"])}<div style="{_DIM}">{lines}</div></div>'
        )
    parts += [f'<div style="{_DIM}">known: {safe(known_line(known))}</div>' for known in answer.json["known"]]
    if words := answer.json["words"]:
        told = " ".join(one["text"] for one in words["sentences"])
        parts.append(
            f'<div style="margin:.4em 0">{safe(told)} <span style="{_DIM}">(told by {safe(words["author"])})</span></div>'
        )
    for left in answer.json["unexplained"]["units"]:
        parts.append(f'<div style="{_DIM}">left over: {left["share"]:.0%} of the firing of {safe(left["unit"])}</div>')
    parts += [f'<div style="{_DIM}">note: {safe(note)}</div>' for note in answer.json["notes"]]
    parts += [figure._repr_html_() for figure in answer.figures]
    parts.append(f'<div style="{_DIM};margin-top:.5em">{safe(_footer(answer))}</div>')
    return _box(parts)


def _footer(answer: "Answer") -> str:
    cost = answer.cost
    spent = answer.outcome if cost is None else f"{cost.forwards:.0f} forward passes"
    seconds = f"{cost.seconds:.0f} s · " if cost is not None and cost.seconds is not None else ""
    return f"run {answer.run} · {seconds}{spent} · {len(answer.experiments)} experiments"


def batch_html(batch: "Batch") -> str:
    """What came of a batch: how many ended how, its null units, its cost, its labels."""
    counts = " ".join(f"{badge(name)} {n:,}" for name, n in batch.statuses.items())
    facts = "".join(f'<div style="{_DIM}">{safe(line.strip())}</div>' for line in facts_of(batch.summary))
    head = f'<div style="font-weight:600">{safe(batch.summary.question)}</div><div style="margin:.4em 0">{counts}</div>'
    foot = f'<div style="{_DIM}">run {safe(batch.run)} · {safe(batch.outcome)}</div>'
    return _box([head, facts, table_html(batch.labels, FEW_ROWS), foot])


def claim_html(claim: "Claim") -> str:
    """One claim with its rivals."""
    return _box([_claim(claim, first=True), table_html(claim.rivals_table)])


def _claim(claim: "Claim", *, first: bool) -> str:
    body = f"{badge(claim.status)} <b>{safe(claim.unit)}</b> {safe(claim.sentence)}"
    score = "" if first or claim.score is None else f' <span style="{_DIM}">({safe(claim.score)})</span>'
    told = [f'<div style="{_DIM}">{safe(claim.numbers)}</div>', _bar(claim)] if first else []
    if not claim.holds_wholly:
        told.append(f'<div style="{_DIM}">{safe(claim.reason)}</div>')
    return f'<div style="margin:.4em 0">{body}{score}{"".join(told)}</div>'


def _bar(claim: "Claim") -> str:
    """A score between 0 and 1 as a dot on its interval, with the null and the best rival as ticks; none for other scores."""
    score = claim.score
    if score is None or claim.side not in ("reads", "attends") or not 0 <= score.value <= 1:
        return ""
    low, high = (score.value, score.value) if score.interval is None else score.interval
    left, wide = 100 * max(low, 0.0), 100 * (min(high, 1.0) - max(low, 0.0))
    dot = f"width:8px;height:8px;border-radius:4px;background:{GROUNDS[claim.status]}"
    line = f"height:4px;background:{GROUNDS[claim.status]};opacity:.5"
    parts = [
        f'<span style="position:absolute;left:{left:.1f}%;width:{wide:.1f}%;top:5px;{line}"></span>',
        f'<span style="position:absolute;left:calc({100 * score.value:.1f}% - 4px);top:3px;{dot}"></span>',
    ]
    best = max((rival.score for rival in claim.rivals), default=None)
    for at, what, drawn in [(score.null, "other units", "dotted"), (best, "best rival", "solid")]:
        if at is not None and 0 <= at <= 1:
            tick = f"position:absolute;left:{100 * at:.1f}%;top:0;height:14px;border-left:2px {drawn} currentColor"
            parts.append(f'<span title="{what} {at:.2f}" style="{tick}"></span>')
    names = f"{score.metric} {score.value:.2f}; ticks: other units (dotted), best rival"
    track = (
        "position:relative;display:inline-block;width:16em;max-width:100%;height:14px;background:rgba(128,128,128,.15)"
    )
    return f'<div title="{safe(names)}">0 <span style="{track}">{"".join(parts)}</span> 1</div>'


def _contexts(examples: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one in examples:
        mark = f'<mark style="background:rgba(255,170,0,.45);color:inherit">{safe(one["token"])}</mark>'
        text = f"{safe(one['before'][-60:])}{mark}{safe(one['after'][:40])}"
        yield f'<div style="{_DIM};font-family:monospace;white-space:pre-wrap">{one["activation"]:6.2f}  {text}</div>'


def _line(status: str, text: str) -> str:
    return f'<div style="margin:.3em 0">{badge(status)} <span style="{_DIM}">{safe(text)}</span></div>'


def badge(status: str) -> str:
    """A status on its colour."""
    ground = GROUNDS.get(status, GROUNDS["ABSTAINED"])
    style = f"background:{ground};color:#fff;border-radius:4px;padding:0 .45em;font-size:.8em;font-weight:600"
    return f'<span style="{style}">{safe(status)}</span>'


def table_html(table: "Table", most: int = SHOWN_ROWS) -> str:
    """The first rows of a table, long cells cut, the whole of them on hovering."""
    title = f'<div style="font-weight:600">{safe(table.title)}</div>' if table.title else ""
    if not table.rows:
        return f'<div style="{_DIM}">{safe(table.title or "table")}: no rows</div>'
    sides = {name: "right" if table.columns[name] in ("int", "float") else "left" for name in table.heads}
    head = "".join(
        f'<th style="{_CELL.format(sides[name])}">{safe(name.replace("_", " "))}</th>' for name in table.heads
    )
    rows = "".join(
        "<tr>" + "".join(_cell(name, row.get(name), sides[name]) for name in table.heads) + "</tr>"
        for row in table.rows[:most]
    )
    more = f'<div style="{_DIM}">the first {most} of {len(table)} rows</div>' if len(table) > most else ""
    return (
        f'<div style="max-width:100%;overflow-x:auto">{title}<table style="border-collapse:collapse;font-size:.9em;color:inherit">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}</div>"
    )


def _cell(name: str, value: object, side: str) -> str:
    from neuronaut.agent.api.tables import cell, cut

    text = cell(value)
    shown = badge(text) if name == "status" and text in GROUNDS else safe(cut(text, LONGEST_CELL))
    whole = f' title="{safe(text)}"' if len(text) > LONGEST_CELL else ""
    return f'<td{whole} style="{_CELL.format(side)}">{shown}</td>'


def output_html(output: "ToolOutput") -> str:
    """What a tool found: its numbers, its tables, its figures."""
    head = f'<div style="font-weight:600">{safe(output.tool)} <span style="{_DIM};font-weight:400">{safe(output.call)}</span></div>'
    parts = [head, *([table_html(output.measured)] if len(output.measured) else [])]
    if facts := output.facts:
        pairs = "".join(
            f'<tr><td style="{_CELL.format("left")}">{safe(name.replace("_", " "))}</td><td style="{_CELL.format("left")}">{safe(value)}</td></tr>'
            for name, value in facts.items()
        )
        parts.append(
            f'<table style="border-collapse:collapse;font-size:.9em;color:inherit"><tbody>{pairs}</tbody></table>'
        )
    for name, table in output.tables.items():
        parts.append(_strips(output, name) or table_html(table, FEW_ROWS))
    parts += [figure._repr_html_() for figure in output.figures]
    if output.arrays:
        told = ", ".join(f"{name} {tuple(array.shape)}" for name, array in output.arrays.items())
        parts.append(f'<div style="{_DIM}">arrays: {safe(told)}</div>')
    return _box(parts)


def _strips(output: "ToolOutput", name: str) -> str:
    """Contexts with their activations as strips of tokens, the darker the stronger; "" for another table."""
    rows = output.payload[name]
    if not all(isinstance(row, dict) and {"pieces", "activations"} <= row.keys() for row in rows):
        return ""
    most = max((abs(value) for row in rows for value in row["activations"] if value is not None), default=0.0) or 1.0
    strips = [
        "".join(_piece(piece, value, most) for piece, value in zip(row["pieces"], row["activations"], strict=False))
        for row in rows[:SHOWN_ROWS]
    ]
    style = "font-family:monospace;white-space:pre-wrap;margin:.15em 0"
    lines = "".join(f'<div style="{style}">{strip}</div>' for strip in strips)
    return f'<div style="font-weight:600">{safe(name)}</div>{lines}'


def _piece(piece: str, value: float | None, most: float) -> str:
    share = 0.0 if value is None else max(-1.0, min(1.0, value / most))
    colour = "31,111,235" if share >= 0 else "240,136,62"
    told = "not measured" if value is None else f"{value:.3g}"
    return f'<span title="{told}" style="background:rgba({colour},{0.6 * abs(share):.2f})">{safe(piece)}</span>'


def record_html(title: str, fields: Mapping[str, str]) -> str:
    """A record of the notebook, field by field."""
    rows = "".join(
        f'<tr><td style="{_CELL.format("left")}"><b>{safe(name)}</b></td>'
        f'<td style="{_CELL.format("left")};white-space:pre-wrap">{safe(value)}</td></tr>'
        for name, value in fields.items()
    )
    table = f'<table style="border-collapse:collapse;font-size:.9em;color:inherit"><tbody>{rows}</tbody></table>'
    return _box([f'<div style="font-weight:600">{safe(title)}</div>', table])


def _box(parts: Iterable[str]) -> str:
    return f'<div style="{_BOX}">{"".join(parts)}</div>'
