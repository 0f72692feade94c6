"""What the notebook knows, read back as plain rows."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.ledger import canonical
from neuronaut.memory.store import Store
from neuronaut.tools.errors import Altered, UserError
from neuronaut.tools.targets.base import Fingerprint
from neuronaut.tools.units import Unit

Row = dict[str, Any]
ALIKE = 50  # texts sought in one pass over a column
MANY = 500  # values in one IN (…): SQLite takes 999 in its oldest builds


def _by(notebook: Store, table: sa.Table, **where: Any) -> list[Row]:
    statement = sa.select(table).where(*(table.c[name] == value for name, value in where.items()))
    return notebook.rows(statement.order_by(*table.primary_key))


def grouped(notebook: Store, table: sa.Table, column: str, values: Iterable[str]) -> dict[str, list[Row]]:
    """The rows of a table by the value of one column, each list in the order of the keys; [] for a value without rows."""
    found: dict[str, list[Row]] = defaultdict(list)
    wanted = list(dict.fromkeys(values))
    for at in range(0, len(wanted), MANY):
        statement = sa.select(table).where(table.c[column].in_(wanted[at : at + MANY]))
        for row in notebook.rows(statement.order_by(*table.primary_key)):
            found[row[column]].append(row)
    return found


def parsed(text: str | bytes, where: str) -> Any:
    """The value of a JSON column. Refuses an altered one."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise Altered(f"{where} holds no JSON") from None


def last(rows: list[Row], where: str) -> Row:
    """The last of the rows. Refuses none: a record that should be there was dropped."""
    if not rows:
        raise UserError(f"{where} is missing: it was dropped; `neuronaut verify` says what else was")
    return rows[-1]


def find_run(notebook: Store, run: str) -> Row:
    """The run, its target, corpus and last end. Refuses an unknown id."""
    rows = _by(notebook, schema.run, id=run)
    if not rows:
        raise UserError(f"there is no run {run!r} in {str(notebook.place)!r}: `neuronaut search` lists what there is")
    row = rows[0]
    row["config"] = parsed(row["config"], f"run {run}")
    row["target"] = last(_by(notebook, schema.target_model, id=row["target"]), f"the target of run {run}")
    row["corpus"] = last(_by(notebook, schema.corpus, id=row["corpus"]), f"the corpus of run {run}")
    ends = _by(notebook, schema.run_end, run=run)
    row["end"] = ends[-1] if ends else None
    return row


def run_in_conversation(notebook: Store, place: str) -> str | None:
    """The run that was begun at a place of a conversation (`run/place`)."""
    found = notebook.rows(
        sa.select(schema.run.c.id).where(schema.run.c.config.contains(f'"conversation":"{place}"', autoescape=True))
    )
    return str(found[0]["id"]) if found else None


def runs_inside(notebook: Store, conversation: str) -> list[str]:
    """The runs that were begun inside a conversation."""
    inside = schema.run.c.config.contains(f'"conversation":"{conversation}/', autoescape=True)
    return [str(row["id"]) for row in notebook.rows(sa.select(schema.run.c.id).where(inside).order_by(schema.run.c.id))]


def newest_batch(notebook: Store) -> str | None:
    """The batch that began last."""
    b = schema.batch.c.run
    found = notebook.rows(sa.select(b).order_by(b.desc()).limit(1))
    return str(found[0]["run"]) if found else None


def runs(notebook: Store, *, after: str | None = None, limit: int | None = None) -> list[Row]:
    """The runs but those of single items of batches, the newest first: question, target, corpus, when it began, how it ended
    (None: not yet). after: only those that began before this run; limit: at most so many."""
    r, t, c = schema.run, schema.target_model, schema.corpus
    joined = sa.join(r, t, t.c.id == r.c.target).join(c, c.c.id == r.c.corpus)
    columns = (r.c.id, r.c.question, r.c.parent_run, r.c.started, t.c.name.label("target"), c.c.name.label("corpus"))
    alone = ~sa.exists().where(schema.item.c.asked == r.c.id)
    statement = sa.select(*columns).select_from(joined).where(alone).order_by(r.c.id.desc()).limit(limit)
    rows = notebook.rows(statement if after is None else statement.where(r.c.id < after))
    ends = grouped(notebook, schema.run_end, "run", (row["id"] for row in rows))
    return [{**row, "outcome": ends[row["id"]][-1]["outcome"] if ends[row["id"]] else None} for row in rows]


def hypotheses(notebook: Store, run: str) -> list[Row]:
    """All hypotheses of a run in order, each with its unit, latest status, predictions and verdicts."""
    h, u = schema.hypothesis, schema.unit
    statement = sa.select(h, u.c.address, u.c.sign).join(u, u.c.id == h.c.unit).where(h.c.run == run).order_by(h.c.id)
    rows = notebook.rows(statement)
    status = states(notebook, [row["id"] for row in rows])
    predictions = grouped(notebook, schema.prediction, "hypothesis", status)
    of_prediction = verdicts(notebook, [p["id"] for ps in predictions.values() for p in ps])
    for row in rows:
        row["status"] = status[row["id"]]
        row["predictions"] = predictions[row["id"]]
        row["verdicts"] = [v for p in row["predictions"] for v in of_prediction[p["id"]]]
    return rows


def n_claims(hypotheses: list[Row], chosen: str) -> int:
    """The predictions about a unit that a run has registered, of both sides and signs, each mode by itself, with that of
    the chosen hypothesis, which counts once whether it is registered yet or not."""
    (mine,) = (row for row in hypotheses if row["id"] == chosen)
    others = (row for row in hypotheses if row["id"] != chosen and _neuron(row) == _neuron(mine))
    return _n_modes(mine) + sum(_n_modes(row) * len(row["predictions"]) for row in others)


def _neuron(row: Row) -> Unit:
    return Unit.parse(row["address"]).with_sign(1)


def _n_modes(row: Row) -> int:
    predicate = json.loads(row["predicate"])
    return len(predicate["of"]) if predicate["kind"] == "modes" else 1


def e_values(notebook: Store, run: str | None = None) -> list[float]:
    """The e-value of every prediction that a run registered, or the whole notebook; 0 for one that did not hold, or that
    was never judged."""
    p, h, v = schema.prediction, schema.hypothesis, schema.verdict
    if run is not None:
        joined = p.join(h, h.c.id == p.c.hypothesis).outerjoin(v, v.c.prediction == p.c.id)
        return [row["e"] or 0.0 for row in notebook.rows(sa.select(v.c.e).select_from(joined).where(h.c.run == run))]
    # As above, without a look at each of a million predictions: only the sum of judged again and not judged is counted.
    held = [float(row["e"]) for row in notebook.rows(sa.select(v.c.e).where(v.c.e > 0))]
    registered = sa.select(sa.func.count()).select_from(p).scalar_subquery()
    (row,) = notebook.rows(
        sa.select((registered + sa.func.count() - sa.func.count(v.c.prediction.distinct())).label("n"))
    )
    return held + [0.0] * (row["n"] - len(held))


def verdicts(notebook: Store, predictions: list[str]) -> dict[str, list[Row]]:
    """The verdicts on each prediction, each with its case and the evidence that it cites."""
    found = grouped(notebook, schema.verdict, "prediction", predictions)
    ids = [v["id"] for vs in found.values() for v in vs]
    cited = grouped(notebook, schema.verdict_evidence, "verdict", ids)
    evidence = grouped(notebook, schema.evidence, "id", (c["evidence"] for cs in cited.values() for c in cs))
    for rows in found.values():
        for row in rows:
            row["case"] = parsed(row["case"], f"verdict {row['id']}")
            row["evidence"] = [e for one in cited[row["id"]] for e in evidence[one["evidence"]]]
    return found


def states(notebook: Store, hypotheses: list[str]) -> dict[str, str]:
    """The latest status of each hypothesis."""
    moves = grouped(notebook, schema.hypothesis_status, "hypothesis", hypotheses)
    return {one: str(last(moves[one], f"the status of hypothesis {one}")["to_state"]) for one in hypotheses}


def outcomes(notebook: Store, run: str) -> list[Row]:
    """ABSTAINED and the like, by unit and side."""
    o, u = schema.outcome, schema.unit
    joined = sa.select(o.c.side, o.c.status, o.c.reason, u.c.address).join(u, u.c.id == o.c.unit)
    return notebook.rows(joined.where(o.c.run == run).order_by(o.c.id))


def opened_blocks(notebook: Store, run: str, address: str, side: str) -> list[int]:
    """Confirm blocks that a run has opened for a unit and side, in order."""
    b, u = schema.block_opened, schema.unit
    joined = sa.select(b.c.block).join(u, u.c.id == b.c.unit)
    where = (b.c.run == run, u.c.address == address, b.c.side == side)
    return [int(row["block"]) for row in notebook.rows(joined.where(*where).order_by(b.c.block))]


def experiments(notebook: Store, run: str) -> list[Row]:
    """All experiments of a run in order, with their ends, evidence and results."""
    rows = _by(notebook, schema.experiment, run=run)
    ids = [row["id"] for row in rows]
    ends = grouped(notebook, schema.experiment_end, "experiment", ids)
    evidence = grouped(notebook, schema.evidence, "experiment", ids)
    kept = (end["result"] for found in ends.values() for end in found if end["result"])
    results = grouped(notebook, schema.artifact, "id", kept)
    for row in rows:
        row["args"] = parsed(row["args"], f"experiment {row['id']}")
        row["end"] = ends[row["id"]][0] if ends[row["id"]] else None
        row["evidence"] = evidence[row["id"]]
        if row["end"] and row["end"]["result"]:
            where = f"artifact {row['end']['result']}"
            row["result"] = parsed(last(results[row["end"]["result"]], where)["content"], where)
    return rows


def artifact(notebook: Store, identifier: str) -> bytes:
    """The content of an artifact."""
    rows = notebook.rows(sa.select(schema.artifact.c.content).where(schema.artifact.c.id == identifier))
    return bytes(last(rows, f"artifact {identifier}")["content"])


def looks(notebook: Store, run: str, tools: Collection[str], units: Collection[str]) -> dict[tuple[str, str], Any]:
    """The payload of each of some tools for each of some units, by (tool, unit): the last one on the run's model and corpus,
    whichever run did it."""
    e, r, end, kept = schema.experiment, schema.run, schema.experiment_end, schema.artifact
    of = sa.select(r.c.target, r.c.corpus).where(r.c.id == run).subquery()
    joined = e.join(r, r.c.id == e.c.run).join(of, sa.and_(of.c.target == r.c.target, of.c.corpus == r.c.corpus))
    joined = joined.join(end, end.c.experiment == e.c.id).join(kept, kept.c.id == end.c.result)
    statement = sa.select(e.c.id, e.c.tool, kept.c.content).select_from(joined).order_by(e.c.id)
    found: dict[tuple[str, str], Any] = {}
    wanted = sorted(units)
    for at in range(0, len(wanted), ALIKE):
        named = (
            e.c.args.contains(canonical({"unit": unit})[1:-1], autoescape=True) for unit in wanted[at : at + ALIKE]
        )
        # A look tests no prediction, which an index knows.
        for row in notebook.rows(statement.where(e.c.prediction.is_(None), e.c.tool.in_(tools), sa.or_(*named))):
            payload = parsed(row["content"], f"experiment {row['id']}")["payload"]
            found[row["tool"], payload["unit"]] = payload
    return found


def test_of(notebook: Store, prediction: str) -> Row | None:
    """The experiment that tested a prediction; None where there is none of its own."""
    rows = _by(notebook, schema.experiment, prediction=prediction)
    return rows[0] if rows else None


def tool_sources(notebook: Store, predictions: list[str]) -> dict[str, set[str]]:
    """The hashes of the tool sources with which each prediction was tested."""
    tests = grouped(notebook, schema.experiment, "prediction", predictions)
    return {one: {row["tool_sha256"] for row in tests[one]} for one in predictions}


def calls(notebook: Store, run: str) -> list[Row]:
    """All language-model calls of a run with their ends (None: begun and never ended)."""
    rows = _by(notebook, schema.llm_call, run=run)
    ends = grouped(notebook, schema.llm_call_end, "call", (row["id"] for row in rows))
    return [{**row, "end": ends[row["id"]][0] if ends[row["id"]] else None} for row in rows]


def repeated(notebook: Store, calls: Iterable[str]) -> dict[str, str]:
    """Of some calls, those that repeat one that was begun and never ended, with the id of that one."""
    found = grouped(notebook, schema.llm_call, "id", calls)
    return {call: row["maybe_billed_twice"] for call, (row,) in found.items() if row["maybe_billed_twice"]}


def batches(notebook: Store, run: str) -> list[Row]:
    """All batches of a run in order: `remote` (the provider's id, None where it was not stored), `end`, and their calls."""
    rows = _by(notebook, schema.llm_batch, run=run)
    ids = [row["id"] for row in rows]
    sent = grouped(notebook, schema.llm_batch_sent, "batch", ids)
    ends = grouped(notebook, schema.llm_batch_end, "batch", ids)
    of: dict[str | None, list[Row]] = defaultdict(list)
    for call in calls(notebook, run) if rows else ():
        of[call["batch"]].append(call)
    for row in rows:
        row["remote"] = sent[row["id"]][0]["remote"] if sent[row["id"]] else None
        row["end"] = ends[row["id"]][0] if ends[row["id"]] else None
        row["calls"] = of[row["id"]]
    return rows


def earlier_reply(notebook: Store, request_sha256: str, whole: Collection[str]) -> Row | None:
    """The end of the first call with the same request that brought a reply whose stop reason is one of `whole`."""
    c, end = schema.llm_call, schema.llm_call_end
    joined = sa.select(end).join(c, c.c.id == end.c.call)
    where = (c.c.request_sha256 == request_sha256, end.c.response.is_not(None), end.c.stop_reason.in_(whole))
    rows = notebook.rows(joined.where(*where).order_by(end.c.id).limit(1))
    return rows[0] if rows else None


def earlier_run(
    notebook: Store, question: str, target: Fingerprint, corpus_sha256: str, config: Row, tools_sha256: str
) -> str | None:
    """An answered run with the same question and settings, weights, number format, engine, corpus and tools, the newest first; no repeats."""
    r, t, c, end = schema.run, schema.target_model, schema.corpus, schema.run_end
    joined = r.join(t, t.c.id == r.c.target).join(c, c.c.id == r.c.corpus).join(end, end.c.run == r.c.id)
    other = sa.exists().where(schema.experiment.c.run == r.c.id, schema.experiment.c.tool_sha256 != tools_sha256)
    where = (r.c.question == question, t.c.weights_sha256 == target.weights_sha256, t.c.dtype == target.dtype,
             t.c.backend == target.backend, c.c.sha256 == corpus_sha256, end.c.outcome == "answered", r.c.parent_run.is_(None),
             ~other)  # fmt: skip
    statement = sa.select(r.c.id, r.c.config).select_from(joined).where(*where).order_by(r.c.id.desc())
    for row in notebook.rows(statement):
        asked = parsed(row["config"], f"run {row['id']}")
        if all(asked.get(name) == value for name, value in config.items()):
            return str(row["id"])
    return None


def find(notebook: Store, identifier: str) -> tuple[str, Row]:
    """The table and row of any id. Refuses an unknown one."""
    for table in schema.RECORDS:
        if "id" in table.c and (rows := _by(notebook, table, id=identifier)):
            return table.name, rows[0]
    raise UserError(
        f"there is no record {identifier!r} in {str(notebook.place)!r}: `neuronaut search` lists what there is"
    )
