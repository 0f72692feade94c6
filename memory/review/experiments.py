"""Experiments as pages show them: arguments, how they ended, their numbers, figures and what they found."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuronaut.memory import queries, schema
from neuronaut.memory.review.claims import Number, number_of
from neuronaut.memory.review.formats import pretty
from neuronaut.memory.review.strips import Band, bands_of
from neuronaut.memory.store import Store
from neuronaut.tools.predicates.text import spelled

Row = Mapping[str, Any]
LONGEST = 6_000  # characters of a value that is shown in full
MOST_ROWS, MOST_COLUMNS = 12, 8  # of a table


@dataclass(frozen=True)
class Drawn:
    """A figure that an experiment drew: the artifact of the picture, and of its data where there are any."""

    name: str
    svg: str
    data: str


@dataclass(frozen=True)
class Table:
    """A list of what a tool found, as rows. more: how many are left out."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: int


@dataclass(frozen=True)
class Experiment:
    """One experiment. outcome: ok, refused, failed or unfinished; facts: single values of what it found, tables: lists."""

    id: str
    run: str
    tool: str
    args: Row
    prediction: str
    repeat_of: str
    outcome: str
    error: str
    seconds: float | None
    forwards: float | None
    numbers: tuple[Number, ...]
    payload: Row
    figures: tuple[Drawn, ...]
    result: str

    @property
    def unit(self) -> str:
        """The unit it is about, "" where it is about none."""
        found = self.args.get("unit")
        return found if isinstance(found, str) else ""

    @property
    def bands(self) -> list[Band]:
        """The contexts that it found."""
        return bands_of(self.args, self.payload)

    @property
    def facts(self) -> list[tuple[str, Any]]:
        """Single values of what it found."""
        return [(name, value) for name, value in _flat(self.payload) if not name.startswith(("unit", "bands "))]

    @property
    def tables(self) -> list[Table]:
        """Lists of what it found, where their rows are alike."""
        lists = ((name, value) for name, value in self.payload.items() if isinstance(value, list))
        found = (_table(name, value) for name, value in lists if not _holds_contexts(value))
        return [table for table in found if table is not None]

    @property
    def shown_args(self) -> str:
        """The arguments in one line."""
        shown = spelled(self.args).items()
        return ", ".join(f"{name} {_word(value)}" for name, value in shown if value not in (None, []))


def experiments_of(notebook: Store, rows: Sequence[Row]) -> list[Experiment]:
    """Some rows of the table of experiments, with their ends, evidence and results."""
    ids = [row["id"] for row in rows]
    ends = queries.grouped(notebook, schema.experiment_end, "experiment", ids)
    evidence = queries.grouped(notebook, schema.evidence, "experiment", ids)
    kept = [end["result"] for some in ends.values() for end in some if end["result"]]
    results = queries.grouped(notebook, schema.artifact, "id", kept)
    return [_experiment(row, ends[row["id"]], evidence[row["id"]], results) for row in rows]


def _experiment(
    row: Row, ends: Sequence[Row], evidence: Iterable[Row], results: Mapping[str, Sequence[Row]]
) -> Experiment:
    end: Row = ends[0] if ends else {}
    stored: Row = {}
    if end.get("result") and results[end["result"]]:
        stored = queries.parsed(results[end["result"]][0]["content"], f"artifact {end['result']}")
    args = row["args"] if isinstance(row["args"], dict) else queries.parsed(row["args"], f"experiment {row['id']}")
    payload = stored.get("payload")
    return Experiment(
        row["id"], row["run"], row["tool"], args, row["prediction"] or "", row["repeat_of"] or "",
        end.get("outcome", "unfinished"), end.get("error") or "", end.get("seconds"), end.get("forwards"),
        tuple(number_of(e, row["run"]) for e in evidence), payload if isinstance(payload, dict) else {},
        tuple(Drawn(str(f.get("name")), f["svg"], f.get("plotly") or "") for f in stored.get("figures", ()) if f.get("svg")),
        end.get("result") or "",
    )  # fmt: skip


def _flat(value: Row, name: str = "") -> Iterable[tuple[str, Any]]:
    for key, inner in value.items():
        whole = f"{name} {key}".strip()
        if isinstance(inner, dict):
            if len(inner) <= MOST_ROWS:
                yield from _flat(inner, whole)
        elif not isinstance(inner, list):
            yield whole, inner
        elif inner and len(inner) <= MOST_ROWS and all(isinstance(one, str) for one in inner):
            yield whole, ", ".join(f"“{one}”" for one in inner)


def _holds_contexts(value: Sequence[Any]) -> bool:
    return any(isinstance(one, dict) and "pieces" in one for one in value)


def _table(name: str, value: Sequence[Any]) -> Table | None:
    rows = [one for one in value if isinstance(one, dict)]
    if not rows or len(rows) < len(value):
        return None
    columns = tuple(key for key, inner in rows[0].items() if not isinstance(inner, (dict, list)))[:MOST_COLUMNS]
    if not columns:
        return None
    shown = tuple(tuple(row.get(column) for column in columns) for row in rows[:MOST_ROWS])
    return Table(name.replace("_", " "), columns, shown, len(rows) - len(shown))


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else pretty(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:59] + "…"
