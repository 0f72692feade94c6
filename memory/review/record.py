"""Any id: the page and the place on it where the record stands, and the row itself."""

from dataclasses import dataclass
from typing import Any

from neuronaut.memory import queries
from neuronaut.memory.review.formats import pretty
from neuronaut.memory.store import Store

LONGEST = 200_000  # characters of a value


@dataclass(frozen=True)
class Record:
    """A row. run: whose trail it stands in, "" where it belongs to none; anchor: where there."""

    table: str
    id: str
    fields: tuple[tuple[str, str], ...]
    run: str
    anchor: str


def record(notebook: Store, identifier: str) -> Record:
    """The row of any id. Refuses an unknown one."""
    table, row = queries.find(notebook, identifier)
    run, anchor = _place(notebook, table, row)
    return Record(table, identifier, tuple((name, _shown(value)) for name, value in row.items()), run, anchor)


def _place(notebook: Store, table: str, row: dict[str, Any]) -> tuple[str, str]:
    """The run in whose trail a row stands, and the anchor there."""
    if table == "run":
        return row["id"], ""
    if row.get("run"):
        return row["run"], row["id"]
    for column in ("hypothesis", "prediction", "experiment", "call"):
        if row.get(column):
            run, _ = _place(notebook, *queries.find(notebook, row[column]))
            return run, row[column] if table.endswith("_end") else row["id"]
    if table == "review":
        run, _ = _place(notebook, *queries.find(notebook, row["target_id"]))
        return run, row["target_id"]
    return "", ""


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        value = value[:LONGEST].decode("utf-8", errors="replace")
    text = "" if value is None else pretty(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
