"""What the index shows: claims that hold the words, facets, runs and batches; and what waits for review."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.review.claims import Claim, claims_where
from neuronaut.memory.review.models import Models
from neuronaut.memory.search import Page, facet_counts, search_page
from neuronaut.memory.store import Store

Row = Mapping[str, Any]
SHOWN = 50  # claims of a page
MOST = 5_000  # claims, and runs, of an index that is a file
NEWEST_RUNS, LOOKED_AT = 12, 200
QUEUED = 10
PROPOSED = "status:proposed"
WAITING = ("supported", "partial", "refuted")
EXAMPLES = ("status:supported", "status:refuted", "side:writes", "layer:8", "unit:8.481")


@dataclass(frozen=True)
class Index:
    """One page of what was found. next: the cursor of the page that follows, None on the last one; newest_only: facets are
    counted over the newest claims only; untested: PROPOSED claims that are left out, since nothing was measured for them."""

    words: str
    rows: tuple[Row, ...]
    next: str | None
    facets: Mapping[str, list[tuple[str, int]]]
    newest_only: bool
    runs: tuple[Row, ...]
    batches: tuple[Row, ...]
    claims: int
    untested: int


def index(notebook: Store, words: str, after: str | None, *, whole: bool = False) -> Index:
    """The claims that hold all words and facets, the newest first; for no words those of which more can be said than that they
    were proposed, if there are any. whole: many at once, for a page that has no next one: the proposed ones behind the others.
    Refuses an unknown facet value."""
    counted = facet_counts(notebook, words)
    page, untested = _page(notebook, words, after, dict(counted.counts["status"]), MOST if whole else SHOWN)
    if whole and untested:
        more = (
            search_page(notebook, f"{words} {PROPOSED}", limit=MOST - len(page.rows)) if len(page.rows) < MOST else None
        )
        page, untested = (Page(page.rows + more.rows, more.next), 0) if more else (page, untested)
    models = Models.read(notebook)
    rows = page.rows
    of_run = _targets(notebook, [row["run"] for row in rows])
    shown = tuple({**row, "model": models.slug(of_run.get(row["run"], ""))} for row in rows)
    first = after is None and not words.strip()
    return Index(
        words, shown, page.next, counted.counts, counted.newest_only, tuple(_runs(notebook, MOST if whole else NEWEST_RUNS)) if first else (),
        tuple(_batches(notebook)) if first else (), len(rows), untested,
    )  # fmt: skip


def _page(notebook: Store, words: str, after: str | None, statuses: Mapping[str, int], limit: int) -> tuple[Page, int]:
    """A page of claims, and how many that nothing was measured for are left out of it."""
    proposed = statuses.get("proposed", 0)
    if words.strip() or not 0 < proposed < sum(statuses.values()):
        return search_page(notebook, words, after=after, limit=limit), 0
    return search_page(notebook, f"-{PROPOSED}", after=after, limit=limit), proposed


def _targets(notebook: Store, runs: list[str]) -> dict[str, str]:
    return {run: rows[0]["target"] for run, rows in queries.grouped(notebook, schema.run, "id", runs).items()}


def _runs(notebook: Store, limit: int) -> list[Row]:
    """The newest runs with what they cost; runs of single items of batches are left out."""
    r, t = schema.run, schema.target_model
    columns = (r.c.id, r.c.question, r.c.parent_run, t.c.name.label("target"))
    statement = sa.select(*columns).join(t, t.c.id == r.c.target).order_by(r.c.id.desc()).limit(max(LOOKED_AT, limit))
    rows = notebook.rows(statement)
    ids = [row["id"] for row in rows]
    inside = queries.grouped(notebook, schema.item, "asked", ids)
    rows = [row for row in rows if not inside[row["id"]]][:limit]
    ends = queries.grouped(notebook, schema.run_end, "run", [row["id"] for row in rows])
    batches = queries.grouped(notebook, schema.batch, "run", [row["id"] for row in rows])
    return [{**row, **_end(ends[row["id"]]), "is_batch": bool(batches[row["id"]])} for row in rows]


def _end(ends: list[dict[str, Any]]) -> Row:
    if not ends:
        return {"outcome": "unfinished", "cost": {}}
    return {"outcome": ends[-1]["outcome"], "cost": json.loads(ends[-1]["cost"])}


def _batches(notebook: Store) -> list[Row]:
    b, r, i = schema.batch, schema.run, schema.item
    statement = (
        sa.select(b.c.run, b.c.wanted, r.c.question).join(r, r.c.id == b.c.run).order_by(b.c.run.desc()).limit(8)
    )
    rows = notebook.rows(statement)
    counted = sa.select(i.c.run, i.c.state, sa.func.count().label("n")).where(i.c.run.in_([row["run"] for row in rows]))
    states: dict[str, dict[str, int]] = {}
    for row in notebook.rows(counted.group_by(i.c.run, i.c.state)) if rows else ():
        states.setdefault(row["run"], {})[row["state"]] = int(row["n"])
    return [{**row, "states": states.get(row["run"], {})} for row in rows]


@dataclass(frozen=True)
class Queue:
    """Judged claims that nobody has said anything about, the newest first. next: where to go on, None at the end."""

    claims: tuple[Claim, ...]
    next: str | None


def queue(notebook: Store, after: str | None) -> Queue:
    """What waits for a person's opinion."""
    h, s, r = schema.hypothesis, schema.hypothesis_status, schema.review
    judged = sa.exists().where(s.c.hypothesis == h.c.id, s.c.to_state.in_(WAITING))
    seen = sa.exists().where(r.c.target_id == h.c.id)
    where = [judged, ~seen, *([h.c.id < after] if after else [])]
    claims = claims_where(notebook, Models.read(notebook), *where, limit=QUEUED + 1)
    return Queue(tuple(claims[:QUEUED]), claims[QUEUED - 1].id if len(claims) > QUEUED else None)
