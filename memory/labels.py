"""What runs say of their units, many at a time: the rows that tables of labels are made of."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.store import Store

MANY = 500  # values in one IN (…)
Row = dict[str, Any]


def judged_claims(notebook: Store, runs: Sequence[str]) -> dict[str, list[Row]]:
    """The judged claims of each run in order: side, claim, predicate, complexity, author, outcome, reason, e, case (JSON)."""
    h, p, v = schema.hypothesis, schema.prediction, schema.verdict
    joined = v.join(p, p.c.id == v.c.prediction).join(h, h.c.id == p.c.hypothesis)
    columns = (h.c.run, h.c.id, h.c.side, h.c.claim, h.c.predicate, h.c.complexity, h.c.author, v.c.outcome, v.c.reason,
               v.c.e, v.c.case)  # fmt: skip
    statement = sa.select(*columns).select_from(joined).order_by(v.c.id)
    return _by_run(notebook, statement, h.c.run, runs)


def outcomes_of(notebook: Store, runs: Sequence[str]) -> dict[str, list[Row]]:
    """ABSTAINED and the like of each run, in order: side, status, reason."""
    o = schema.outcome.c
    return _by_run(notebook, sa.select(o.run, o.side, o.status, o.reason).order_by(o.id), o.run, runs)


def costs_of(notebook: Store, runs: Sequence[str]) -> dict[str, str]:
    """The cost (JSON) of the last end of each run that ended."""
    e = schema.run_end.c
    found = _by_run(notebook, sa.select(e.run, e.cost).order_by(e.id), e.run, runs)
    return {run: str(rows[-1]["cost"]) for run, rows in found.items() if rows}


def e_values_of(notebook: Store, runs: Sequence[str]) -> list[float]:
    """The e-value of every prediction that the runs registered, 0 for one that did not hold or was never judged."""
    p, h, v = schema.prediction, schema.hypothesis, schema.verdict
    joined = p.join(h, h.c.id == p.c.hypothesis).outerjoin(v, v.c.prediction == p.c.id)
    statement = sa.select(h.c.run, v.c.e).select_from(joined).order_by(p.c.id)
    found = _by_run(notebook, statement, h.c.run, runs)
    return [float(row["e"] or 0.0) for rows in found.values() for row in rows]


def call_errors_of(notebook: Store, runs: Sequence[str]) -> list[str]:
    """Why each call to a language model that failed did so, in order."""
    call, end = schema.llm_call.c, schema.llm_call_end.c
    joined = schema.llm_call_end.join(schema.llm_call, call.id == end.call)
    statement = (
        sa.select(call.run, end.id, end.error).select_from(joined).where(end.error.is_not(None)).order_by(end.id)
    )
    rows = [row for found in _by_run(notebook, statement, call.run, runs).values() for row in found]
    return [str(row["error"]) for row in sorted(rows, key=lambda row: str(row["id"]))]


def _by_run(
    notebook: Store, statement: sa.Select[Any], column: sa.Column[Any], runs: Sequence[str]
) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {run: [] for run in runs}
    for at in range(0, len(runs), MANY):
        for row in notebook.rows(statement.where(column.in_(runs[at : at + MANY]))):
            found[row["run"]].append(row)
    return found
