"""What the notebook found, as flat rows: one for each unit and side of a run (`labels`), or one for each claim (`claims`)."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.store import Store
from neuronaut.tools.errors import UserError

Row = dict[str, Any]
Kind = Literal["labels", "claims"]
Nulls = Literal["without", "only", "with"]
RUNS = 100  # that are read together: what is held at a time does not grow with the notebook
EXAMPLES = {"k": 3, "context": 12, "band": "top", "seed": 0}  # what a run looks at before it proposes
ORDER = ("SUPPORTED", "PARTIAL", "UNRESOLVED", "REFUTED")  # of one side the first of these is its label
SCORES = ("f1", "precision", "coverage", "delta")  # with an interval; delta: nats, of the writes side
NUMBERS = ("base_rate", "ap", "r", "e")
COLUMNS: dict[str, Literal["text", "int", "float"]] = {
    "address": "text", "kind": "text", "layer": "int", "index": "int", "sign": "int",
    "dictionary": "text", "dictionary_sha256": "text", "side": "text", "claim": "text", "predicate": "text", "author_words": "text",
    "complexity": "int", "status": "text", "reason": "text",
    **{f"{name}{end}": "float" for name in SCORES for end in ("", "_low", "_high")}, **dict.fromkeys(NUMBERS, "float"),
    "null_percentile": "float", "e_counted": "float", "n_documents": "int", "n_edited_documents": "int",
    "n_rivals": "int", "rivals_beaten": "int", "best_rival": "text", "best_rival_f1": "float", "author": "text",
    "run": "text", "hypothesis": "text", "verdict": "text", "experiment": "text", "evidence": "text", "rule_version": "text",
    "run_outcome": "text", "run_seconds": "float", "run_forwards": "float", "run_usd_micro": "int", "batch": "text", "null_kind": "text",
    "model": "text", "model_sha256": "text", "tokenizer_sha256": "text", "processing": "text", "corpus": "text", "corpus_sha256": "text",
    "code_version": "text", "ledger_head": "text",
}  # fmt: skip


def flat_rows(notebook: Store, kind: Kind, run: str | None = None, nulls: Nulls = "without") -> Iterator[Row]:
    """The rows with all of COLUMNS, None where a value does not apply, by run in the order in which runs began.

    run: one, or a batch with the runs of its items; None is all that have ended. Repeats, scores and conversations hold no
    finding of their own and are left out. Inside `snapshot`, or another process may write in between.
    """
    head = notebook.head()
    for some in _chunks(notebook, run):
        runs = {row["run"]: row for row in some if row["run"] is not None}
        found = _of_runs(notebook, kind, list(runs))
        for about in some:
            if (about["null_kind"] is not None) == (nulls == "without") and nulls != "with":
                continue
            rows = found[about["run"]] if about["run"] in runs else [_of_item(about)]
            for row in rows:
                yield {name: {**about, **row, "ledger_head": head}.get(name) for name in COLUMNS}


def n_unfinished(notebook: Store) -> int:
    """Runs that have not ended: what they found so far is in no row of the whole notebook."""
    r, end = schema.run, schema.run_end
    open_ = (
        sa.select(sa.func.count().label("n")).select_from(r).where(~sa.exists().where(end.c.run == r.c.id), _finds())
    )
    return int(notebook.rows(open_)[0]["n"])


def _finds() -> sa.ColumnElement[bool]:
    """Whether a run may hold findings of its own."""
    r = schema.run.c
    scored = r.question.startswith("neuronaut score ", autoescape=True)
    return sa.and_(r.parent_run.is_(None), ~scored, r.question != "a conversation")


# Runs and items, some at a time


def _chunks(notebook: Store, run: str | None) -> Iterator[list[Row]]:
    """What each row says of its run: outcome, cost, model, corpus, and of the batch that it is part of."""
    if run is None:
        last = ""
        while some := _ended(notebook, last):
            yield _described(notebook, [{"run": one} for one in some])
            last = some[-1]
        return
    queries.find_run(notebook, run)
    if not notebook.rows(sa.select(schema.batch.c.run).where(schema.batch.c.run == run)):
        yield _described(notebook, [{"run": run}])
        return
    rank = -1
    while items := _items(notebook, run, rank):
        yield _described(notebook, items)
        rank = items[-1]["rank"]


def _ended(notebook: Store, after: str) -> list[str]:
    r, end = schema.run.c, schema.run_end.c
    ended = sa.exists().where(end.run == r.id)
    statement = sa.select(r.id).where(r.id > after, ended, _finds()).order_by(r.id).limit(RUNS)
    return [row["id"] for row in notebook.rows(statement)]


def _items(notebook: Store, batch: str, after: int) -> list[Row]:
    i = schema.item.c
    statement = sa.select(i.rank, i.address, i.null_kind, i.state, i.reason, i.asked).where(
        i.run == batch, i.rank > after
    )
    rows = notebook.rows(statement.order_by(i.rank).limit(RUNS))
    return [{**row, "batch": batch, "run": row["asked"] if row["state"] == "done" else None} for row in rows]


def _described(notebook: Store, some: list[Row]) -> list[Row]:
    named = [str(row["run"] or row["batch"]) for row in some]
    runs = queries.grouped(notebook, schema.run, "id", named)
    if missing := [one for one in named if not runs[one]]:
        raise UserError(f"run {missing[0]} is missing: it was dropped; `neuronaut verify` says what else was")
    targets = queries.grouped(notebook, schema.target_model, "id", (runs[one][0]["target"] for one in named))
    texts = queries.grouped(notebook, schema.corpus, "id", (runs[one][0]["corpus"] for one in named))
    ends = queries.grouped(notebook, schema.run_end, "run", named)
    items = queries.grouped(
        notebook, schema.item, "asked", (row["run"] for row in some if row["run"] and "batch" not in row)
    )
    found = []
    for row, one in zip(some, named, strict=True):
        about = runs[one][0]
        target, corpus, item = targets[about["target"]][0], texts[about["corpus"]][0], items[row["run"]]
        planted = {"batch": item[0]["run"], "null_kind": item[0]["null_kind"]} if item else {"null_kind": None}
        found.append(
            {
                "model": target["name"], "model_sha256": target["weights_sha256"], "tokenizer_sha256": target["tokenizer_sha256"],
                "processing": target["processing"], "corpus": corpus["name"], "corpus_sha256": corpus["sha256"],
                "code_version": about["code_version"], **(_ended_how(ends[one]) if row["run"] else {}), **planted, **row,
            }
        )  # fmt: skip
    return found


def _ended_how(ends: Sequence[Mapping[str, Any]]) -> Row:
    if not ends:
        return {"run_outcome": "unfinished"}
    cost = json.loads(ends[-1]["cost"])
    usd = cost.get("usd", 0.0)
    micro = None if usd is None else round(usd * 1e6)
    spent = {"run_seconds": cost.get("seconds"), "run_forwards": cost.get("forwards"), "run_usd_micro": micro}
    return {"run_outcome": ends[-1]["outcome"], **spent}


def _of_item(item: Row) -> Row:
    """A unit that no run has answered for: it waits, was skipped or failed."""
    return {"status": item["state"].upper(), "reason": item["reason"], "run": None}


# Claims and outcomes


def _of_runs(notebook: Store, kind: Kind, runs: list[str]) -> dict[str, list[Row]]:
    """The rows of each run: of claims all, of labels one for each unit and side."""
    claims = _claims(notebook, runs, judged_only=kind == "labels")
    of: dict[str, list[Row]] = defaultdict(list)
    if kind == "claims":
        for row in claims:
            of[row["run"]].append(row)
        return of
    best: dict[tuple[str, str, str], Row] = {}
    for row in claims:
        key = (row["run"], row["unit"], row["side"])
        if key not in best or _rank(row) < _rank(best[key]):
            best[key] = row
    for row in [*_outcomes(notebook, runs), *_untested(notebook, runs)]:
        best.setdefault((row["run"], row["unit"], row["side"]), row)
    for key in sorted(best):
        of[key[0]].append(best[key])
    return of


def _rank(row: Row) -> tuple[int, float, str]:
    status = ORDER.index(row["status"]) if row["status"] in ORDER else len(ORDER)
    return status, -(row["f1"] if row["f1"] is not None else row["delta"] or 0.0), row["hypothesis"]


def _claims(notebook: Store, runs: list[str], *, judged_only: bool) -> list[Row]:
    h = schema.hypothesis
    columns = (h.c.id.label("hypothesis"), h.c.run, h.c.unit, h.c.side, h.c.claim, h.c.predicate, h.c.complexity, h.c.author,
               h.c.words.label("author_words"), *_unit_columns())  # fmt: skip
    statement = sa.select(*columns).select_from(_with_unit(h)).where(h.c.run.in_(runs))
    if judged_only:
        p, v = schema.prediction, schema.verdict
        judged = sa.exists().where(p.c.hypothesis == h.c.id, v.c.prediction == p.c.id)
        statement = statement.where(judged)
    rows = notebook.rows(statement.order_by(h.c.run, h.c.id))
    ids = [row["hypothesis"] for row in rows]
    predictions = queries.grouped(notebook, schema.prediction, "hypothesis", ids)
    of = queries.verdicts(notebook, [p["id"] for ps in predictions.values() for p in ps])
    unjudged = [one for one in ids if not any(of[p["id"]] for p in predictions[one])]
    moves = queries.grouped(notebook, schema.hypothesis_status, "hypothesis", unjudged)
    for row in rows:
        verdicts = [v for p in predictions[row["hypothesis"]] for v in of[p["id"]]]
        row.update(_judged(verdicts[-1]) if verdicts else _not_judged(moves[row["hypothesis"]]))
    return rows


def _not_judged(moves: Sequence[Mapping[str, Any]]) -> Row:
    last = moves[-1] if moves else {"to_state": "proposed", "reason": ""}
    return {**dict.fromkeys((*SCORES, *NUMBERS)), "status": last["to_state"].upper(), "reason": last["reason"]}


def _judged(verdict: Row) -> Row:
    measured = {e["metric"]: e for e in verdict["evidence"]}
    case = verdict["case"]
    rivals = case.get("rivals") or []
    best: Row = max(rivals, key=lambda one: one.get("f1", -1.0), default={})
    scores = {
        f"{name}{end}": measured[name][column] if name in measured else None
        for name in SCORES
        for end, column in (("", "value"), ("_low", "ci_low"), ("_high", "ci_high"))
    }
    primary: Row = measured.get("f1") or measured.get("delta") or next(iter(measured.values()), {})
    return {
        **scores, **{name: measured[name]["value"] if name in measured else None for name in NUMBERS},
        "status": verdict["outcome"], "reason": verdict["reason"], "null_percentile": primary.get("null_percentile"),
        "e_counted": verdict["e"], "n_documents": primary.get("n"), "n_edited_documents": len(case.get("bets", ())),
        "n_rivals": len(rivals), "rivals_beaten": sum(one.get("difference_low", 0.0) > 0 for one in rivals),
        "best_rival": best.get("claim"), "best_rival_f1": best.get("f1"), "verdict": verdict["id"],
        "experiment": primary.get("experiment"), "evidence": json.dumps(sorted(e["id"] for e in verdict["evidence"])),
        "rule_version": verdict["rule_version"],
    }  # fmt: skip


def _outcomes(notebook: Store, runs: list[str]) -> list[Row]:
    o = schema.outcome
    columns = (o.c.run, o.c.unit, o.c.side, o.c.status, o.c.reason, *_unit_columns())
    return notebook.rows(
        sa.select(*columns).select_from(_with_unit(o)).where(o.c.run.in_(runs)).order_by(o.c.run, o.c.id)
    )


def _untested(notebook: Store, runs: list[str]) -> list[Row]:
    """Hypotheses without a verdict, of units and sides that may have nothing else: the last status of each."""
    h, s = schema.hypothesis, schema.hypothesis_status
    later = s.alias()
    last = sa.and_(
        s.c.hypothesis == h.c.id, ~sa.exists().where(later.c.hypothesis == s.c.hypothesis, later.c.seq > s.c.seq)
    )
    columns = (h.c.id.label("hypothesis"), h.c.run, h.c.unit, h.c.side, h.c.claim, h.c.predicate, h.c.complexity, h.c.author,
               h.c.words.label("author_words"), s.c.to_state, s.c.reason, *_unit_columns())  # fmt: skip
    joined = _with_unit(h).join(s, last)
    untested = s.c.to_state.in_(("untestable", "registered", "testing", "proposed"))
    rows = notebook.rows(sa.select(*columns).select_from(joined).where(h.c.run.in_(runs), untested).order_by(h.c.id))
    return [{**row, "status": row["to_state"].upper()} for row in rows]


def _with_unit(table: sa.Table) -> sa.FromClause:
    u, d = schema.unit, schema.dictionary
    return table.join(u, u.c.id == table.c.unit).outerjoin(d, d.c.id == u.c.dictionary)


def _unit_columns() -> tuple[sa.ColumnElement[Any], ...]:
    u, d = schema.unit.c, schema.dictionary.c
    named = (d.name.label("dictionary"), d.sha256.label("dictionary_sha256"))
    layer = sa.func.coalesce(d.layer, u.layer).label("layer")  # of a feature its dictionary knows it
    return (u.address, u.kind, layer, u["index"], u.sign, *named)


# What a unit did on explore text


def looked(notebook: Notebook, run: str, address: str) -> dict[str, Row]:
    """The payloads of `top_examples` and `firing` for a unit, by tool: those of the run, else those of an earlier run on the
    same model and text by the same tools. A tool that was not used is missing."""
    e, end, kept = schema.experiment, schema.experiment_end, schema.artifact
    joined = e.join(end, end.c.experiment == e.c.id).join(kept, kept.c.id == end.c.result)
    wanted = ("top_examples", "firing")
    statement = (
        sa.select(e.c.tool, e.c.args, kept.c.content).select_from(joined).where(e.c.run == run, e.c.tool.in_(wanted))
    )
    found = {
        row["tool"]: json.loads(row["content"])["payload"]
        for row in notebook.rows(statement.order_by(e.c.id))
        if json.loads(row["args"])["unit"] == address
    }
    if missing := [tool for tool in wanted if tool not in found]:
        source = notebook.rows(sa.select(e.c.tool_sha256).where(e.c.run == run).order_by(e.c.id).limit(1))
        for tool in missing if source else ():
            args = {"unit": address} if tool == "firing" else {"unit": address, **EXAMPLES}
            if done := notebook.finished(run, ExperimentSpec(tool, source[0]["tool_sha256"], args)):
                found[tool] = (done.finished or {})["payload"]
    return found


def labelled_windows(notebook: Store, tools: tuple[str, ...], run: str | None = None) -> Iterator[tuple[str, Row, Row]]:
    """Tool, model and payload of each finished score of some tools that keeps its windows, the oldest first; of one run, or of
    all. One payload is held at a time."""
    e, r, t, end = schema.experiment, schema.run, schema.target_model, schema.experiment_end
    joined = e.join(end, end.c.experiment == e.c.id).join(r, r.c.id == e.c.run).join(t, t.c.id == r.c.target)
    columns = (e.c.id, e.c.tool, end.c.result, t.c.name, t.c.weights_sha256)
    statement = sa.select(*columns).select_from(joined).where(e.c.tool.in_(tools), end.c.outcome == "ok")
    for row in notebook.rows((statement if run is None else statement.where(e.c.run == run)).order_by(e.c.id)):
        payload = json.loads(queries.artifact(notebook, row["result"]))["payload"]
        if "items" in payload:
            yield row["tool"], {"model": row["name"], "model_sha256": row["weights_sha256"]}, payload
