"""One record with those that it rests on and those that rest on it, as plain rows: what a view of it shows."""

from typing import Any

import sqlalchemy as sa

from neuronaut.memory import claim_index, queries, schema
from neuronaut.memory.queries import Row, grouped
from neuronaut.memory.store import Store

SHOWN = 200  # claims, experiments or outcomes of one record: more are found by `search`


def claim(notebook: Store, hypothesis: str) -> Row:
    """A hypothesis with its unit, target, question and status, and `moves`, `predictions`, `verdicts` (with the evidence that they
    cite), `experiments` and `reviews`."""
    row = _claim(notebook, hypothesis)
    predictions = _by(notebook, schema.prediction, "hypothesis", hypothesis)
    ids = [one["id"] for one in predictions]
    verdicts = queries.verdicts(notebook, ids)
    tests = grouped(notebook, schema.experiment, "prediction", ids)
    return {
        **row,
        "moves": _by(notebook, schema.hypothesis_status, "hypothesis", hypothesis),
        "predictions": predictions,
        "verdicts": [verdict for one in ids for verdict in verdicts[one]],
        "experiments": [_ended(notebook, test) for one in ids for test in tests[one]],
        "reviews": reviews(notebook, hypothesis),
    }


def experiment(notebook: Store, identifier: str) -> Row:
    """An experiment with its parsed `args`, `end`, `evidence`, `result` (None without one), the `claim` that it tested, the names of
    its corpus and target, and `repeats`: the experiments that repeated it."""
    row = _ended(notebook, _one(notebook, schema.experiment, identifier))
    run = queries.find_run(notebook, row["run"])
    kept = row["end"] and row["end"]["result"]
    prediction = _by(notebook, schema.prediction, "id", row["prediction"])
    tested = _by(notebook, schema.hypothesis, "id", prediction[0]["hypothesis"]) if prediction else []
    return {
        **row,
        "args": queries.parsed(row["args"], f"experiment {identifier}"),
        "evidence": _by(notebook, schema.evidence, "experiment", identifier),
        "result": queries.parsed(queries.artifact(notebook, kept), f"artifact {kept}") if kept else None,
        "claim": tested[0] if tested else None,
        "target": run["target"]["name"],
        "corpus_name": run["corpus"]["name"],
        "repeats": [one["id"] for one in _by(notebook, schema.experiment, "repeat_of", identifier)],
        "reviews": reviews(notebook, identifier),
    }


def evidence(notebook: Store, identifier: str) -> Row:
    """A measurement with its `experiment`, and the `verdicts` that cite it."""
    row = _one(notebook, schema.evidence, identifier)
    cited = _by(notebook, schema.verdict_evidence, "evidence", identifier)
    verdicts = grouped(notebook, schema.verdict, "id", (one["verdict"] for one in cited))
    return {
        **row,
        "experiment": _one(notebook, schema.experiment, row["experiment"]),
        "verdicts": [v for vs in verdicts.values() for v in vs],
    }


def verdict(notebook: Store, identifier: str) -> Row:
    """A verdict with its parsed `case`, the `evidence` that it cites, the `prediction` that it judges and its `claim`."""
    judged = _one(notebook, schema.verdict, identifier)["prediction"]
    prediction = _one(notebook, schema.prediction, judged)
    found = next(one for one in queries.verdicts(notebook, [judged])[judged] if one["id"] == identifier)
    return {**found, "prediction": prediction, "claim": _claim(notebook, prediction["hypothesis"])}


def unit(notebook: Store, units: list[str]) -> Row:
    """The `claims` about a unit (its rows in several targets), the newest first, and its `outcomes`, such as ABSTAINED."""
    h, o = schema.hypothesis, schema.outcome
    newest = sa.select(h.c.id).where(h.c.unit.in_(units)).order_by(h.c.id.desc()).limit(SHOWN)
    ids = [row["id"] for row in notebook.rows(newest)]
    rows = notebook.rows(claim_index.record_of(h.c.id.in_(ids)))
    outcomes = notebook.rows(sa.select(o).where(o.c.unit.in_(units)).order_by(o.c.id.desc()).limit(SHOWN))
    return {"claims": rows[::-1], "outcomes": outcomes}


def call(notebook: Store, identifier: str) -> Row:
    """A call of a language model with its parsed `request` and its `end`, None where it has none."""
    row = _one(notebook, schema.llm_call, identifier)
    ends = _by(notebook, schema.llm_call_end, "call", identifier)
    return {**row, "request": queries.parsed(row["request"], f"call {identifier}"), "end": ends[0] if ends else None}


def holders(notebook: Store, artifact: str) -> list[str]:
    """The experiments of which an artifact is the result."""
    return [str(row["experiment"]) for row in _by(notebook, schema.experiment_end, "result", artifact)]


def reviews(notebook: Store, identifier: str) -> list[Row]:
    """What people said of a record, the oldest first."""
    return _by(notebook, schema.review, "target_id", identifier)


def failed_items(notebook: Store, run: str) -> list[Row]:
    """The items of a batch that failed, in order."""
    i = schema.item
    where = (i.c.run == run, i.c.state == "failed")
    return notebook.rows(sa.select(i).where(*where).order_by(i.c.rank).limit(SHOWN))


def _claim(notebook: Store, hypothesis: str) -> Row:
    rows = notebook.rows(claim_index.record_of(schema.hypothesis.c.id == hypothesis))
    return queries.last(rows, f"the status, unit or run of hypothesis {hypothesis}")


def _one(notebook: Store, table: sa.Table, identifier: str) -> Row:
    return queries.last(_by(notebook, table, "id", identifier), f"{table.name} {identifier}")


def _ended(notebook: Store, row: Row) -> Row:
    ends = _by(notebook, schema.experiment_end, "experiment", row["id"])
    return {**row, "end": ends[0] if ends else None}


def _by(notebook: Store, table: sa.Table, column: str, value: Any) -> list[Row]:
    if value is None:
        return []
    return notebook.rows(sa.select(table).where(table.c[column] == value).order_by(*table.primary_key).limit(SHOWN))
