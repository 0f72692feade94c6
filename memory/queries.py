"""What the notebook knows, read back as plain rows."""

import json
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import UserError

Row = dict[str, Any]


def _by(notebook: Notebook, table: sa.Table, **where: Any) -> list[Row]:
    return notebook.rows(sa.select(table).where(*(table.c[name] == value for name, value in where.items())))


def find_run(notebook: Notebook, run: str) -> Row:
    """The run, its target, corpus and end. Refuses an unknown id."""
    rows = _by(notebook, schema.run, id=run)
    if not rows:
        raise UserError(f"there is no run {run!r} in {str(notebook.path)!r}: neuronaut search lists what there is")
    row = rows[0]
    row["config"] = json.loads(row["config"])
    row["target"] = _by(notebook, schema.target_model, id=row["target"])[0]
    row["corpus"] = _by(notebook, schema.corpus, id=row["corpus"])[0]
    ends = _by(notebook, schema.run_end, run=run)
    row["end"] = ends[-1] if ends else None
    return row


def hypotheses(notebook: Notebook, run: str) -> list[Row]:
    """All hypotheses of a run in order, each with its unit, latest status, predictions and verdicts."""
    h, u = schema.hypothesis, schema.unit
    statement = sa.select(h, u.c.address, u.c.sign).join(u, u.c.id == h.c.unit).where(h.c.run == run).order_by(h.c.id)
    rows = notebook.rows(statement)
    for row in rows:
        row["status"] = state(notebook, row["id"])
        row["predictions"] = _by(notebook, schema.prediction, hypothesis=row["id"])
        row["verdicts"] = [v for p in row["predictions"] for v in _by(notebook, schema.verdict, prediction=p["id"])]
        for verdict in row["verdicts"]:
            cited = _by(notebook, schema.verdict_evidence, verdict=verdict["id"])
            verdict["case"] = json.loads(verdict["case"])
            verdict["evidence"] = [_by(notebook, schema.evidence, id=one["evidence"])[0] for one in cited]
    return rows


def state(notebook: Notebook, hypothesis: str) -> str:
    """The latest status of a hypothesis."""
    status = schema.hypothesis_status
    statement = sa.select(status.c.to_state).where(status.c.hypothesis == hypothesis)
    return str(notebook.rows(statement.order_by(status.c.seq.desc()).limit(1))[0]["to_state"])


def outcomes(notebook: Notebook, run: str) -> list[Row]:
    """ABSTAINED and the like, by unit and side."""
    o, u = schema.outcome, schema.unit
    statement = (
        sa.select(o.c.side, o.c.status, o.c.reason, u.c.address).join(u, u.c.id == o.c.unit).where(o.c.run == run)
    )
    return notebook.rows(statement.order_by(o.c.id))


def opened_blocks(notebook: Notebook, run: str, address: str, side: str) -> list[int]:
    """Confirm blocks that a run has opened for a unit and side, in order."""
    b, u = schema.block_opened, schema.unit
    statement = (
        sa.select(b.c.block).join(u, u.c.id == b.c.unit).where(b.c.run == run, u.c.address == address, b.c.side == side)
    )
    return [int(row["block"]) for row in notebook.rows(statement.order_by(b.c.block))]


def experiments(notebook: Notebook, run: str) -> list[Row]:
    """All experiments of a run in order, with their ends and results."""
    rows = notebook.rows(
        sa.select(schema.experiment).where(schema.experiment.c.run == run).order_by(schema.experiment.c.id)
    )
    for row in rows:
        ends = _by(notebook, schema.experiment_end, experiment=row["id"])
        row["args"] = json.loads(row["args"])
        row["end"] = ends[0] if ends else None
        row["evidence"] = _by(notebook, schema.evidence, experiment=row["id"])
        if row["end"] and row["end"]["result"]:
            row["result"] = json.loads(_by(notebook, schema.artifact, id=row["end"]["result"])[0]["content"])
    return rows


def calls(notebook: Notebook, run: str) -> list[Row]:
    """All language-model calls of a run with their ends."""
    rows = _by(notebook, schema.llm_call, run=run)
    for row in rows:
        ends = _by(notebook, schema.llm_call_end, call=row["id"])
        row["end"] = ends[0] if ends else None
    return rows


def earlier_reply(notebook: Notebook, request_sha256: str) -> Row | None:
    """The end of an earlier call with the same request that brought a reply."""
    c, end = schema.llm_call, schema.llm_call_end
    statement = (
        sa.select(end)
        .join(c, c.c.id == end.c.call)
        .where(c.c.request_sha256 == request_sha256, end.c.response.is_not(None))
    )
    rows = notebook.rows(statement.limit(1))
    return rows[0] if rows else None


def earlier_run(
    notebook: Notebook, question: str, target: str, corpus_sha256: str, config: dict[str, Any]
) -> str | None:
    """An answered run with the same question and settings on the same weights and corpus, newest first."""
    r, t, c, end = schema.run, schema.target_model, schema.corpus, schema.run_end
    joined = (
        sa.select(r.c.id, r.c.config)
        .join(t, t.c.id == r.c.target)
        .join(c, c.c.id == r.c.corpus)
        .join(end, end.c.run == r.c.id)
    )
    where = (
        r.c.question == question,
        t.c.weights_sha256 == target,
        c.c.sha256 == corpus_sha256,
        end.c.outcome == "answered",
    )
    for row in notebook.rows(joined.where(*where).order_by(r.c.id.desc())):
        if all(json.loads(row["config"]).get(name) == value for name, value in config.items()):
            return str(row["id"])
    return None


def find(notebook: Notebook, identifier: str) -> tuple[str, Row]:
    """The table and row of any id. Refuses an unknown one."""
    for table in schema.RECORDS:
        if "id" in table.c and (rows := _by(notebook, table, id=identifier)):
            return table.name, rows[0]
    raise UserError(f"there is no record {identifier!r} in {str(notebook.path)!r}")


FACETS = ("status", "side", "author", "unit", "run", "layer")


def search(notebook: Notebook, words: str, *, limit: int = 100) -> list[Row]:
    """Claims that hold all the words and facets (`status:supported side:reads unit:8.481 author:grammar layer:8 run:ID`)."""
    h, u = schema.hypothesis, schema.unit
    statement = sa.select(h, u.c.address, u.c.layer).join(u, u.c.id == h.c.unit)
    status = None
    for word in words.split():
        facet, _, value = word.partition(":")
        if not value or facet not in FACETS:
            statement = statement.where(h.c.claim.icontains(word, autoescape=True))
        elif facet == "status":
            status = value.lower()
        elif facet == "layer":
            if not value.isdigit():
                raise UserError(f"layer:{value} is no layer number")
            statement = statement.where(u.c.layer == int(value))
        elif facet == "unit":
            statement = statement.where(u.c.address == value)
        else:
            statement = statement.where(h.c[facet] == value)
    rows = []
    for row in notebook.rows(statement.order_by(h.c.id.desc())):
        row["status"] = state(notebook, row["id"])
        if status in (None, row["status"]):
            rows.append(row)
        if len(rows) == limit:
            break
    return rows
