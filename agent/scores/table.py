"""Scores as people read them: the corrected number first, baselines, the number as published, and counts beside."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuronaut.agent.lines import interval
from neuronaut.agent.view import visible

Row = Mapping[str, Any]
COLUMNS = ("score", "corrected", "chance", "other explanation", "random unit", "as published", "ok/parse/api")


def table_lines(rows: Sequence[Row]) -> Iterator[str]:
    """A table of the scores that have a number, then what stands beside each, then those that were refused."""
    done = [row for row in rows if not row["refused"]]
    cells = [list(COLUMNS), *(_cells(row) for row in done)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(COLUMNS))]
    if done:
        for line in cells:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        yield ""
    for row in done:
        if told := "; ".join(_beside(row)):
            yield f"{named(row)}: {told}"
    for row in rows:
        if row["refused"]:
            yield f"{named(row)}: no number: {visible(row['refused'])}"


def score_lines(payload: Row, _: Row) -> Iterator[str]:
    """One score in the record of a run: a title, then its numbers."""
    yield f"{named(payload)} of {payload['unit']}: {payload['explanation']}"
    for name, cell in zip(COLUMNS[1:], _cells(payload)[1:], strict=True):
        if cell != "-":
            yield f"{name:<18} {cell}"
    yield from _beside(payload)


def named(row: Row) -> str:
    """The name of a score, with how it was judged where there are several ways."""
    return f"{row['score']} ({row['mode']})" if row["mode"] else str(row["score"])


def _cells(row: Row) -> list[str]:
    replies = row["replies"]
    chance = "-" if row["chance"] is None else f"{row['chance']:g}"
    counts = f"{replies['n_ok']}/{replies['n_parse_fail']}/{replies['n_api_fail']}"
    arms = [_number(row[arm]) for arm in ("shuffled", "random_unit", "published")]
    return [named(row), _number(row), chance, *arms, counts]


def _number(arm: Row | None) -> str:
    if arm is None:
        return "-"
    if arm["refused"]:
        return "refused"
    return f"{arm['value']:.2f}{interval(arm['ci'])}"


def _beside(row: Row) -> Iterator[str]:
    yield from (f"{name} {value:.3g}" for name, value in row["beside"].items())
    yield from map(visible, row["notes"])
    for name, arm in (
        ("other explanation", row["shuffled"]),
        ("random unit", row["random_unit"]),
        ("as published", row["published"]),
    ):
        if arm is not None and arm["refused"]:
            yield f"{name}: {visible(arm['refused'])}"
