"""A notebook in which every field that somebody else may fill holds a text of choice, each in a run of its own."""

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from neuronaut.memory import queries, schema
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.judge import Decision, ReadsCase, Rival
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.review.links import Served
from neuronaut.memory.review.models import Models
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.targets.base import Fingerprint
from neuronaut.tools.units import Unit

FIELDS = (
    "question", "model", "corpus", "run reason", "address", "claim", "words", "author", "predicate", "metric", "baseline", "split",
    "verdict reason", "rival", "tool", "argument", "argument name", "error", "result", "result name", "cell", "column", "piece", "rule",
    "note", "figure name", "figure", "subject", "evidence metric", "unit of measure", "outcome reason", "outcome side", "prompt", "reply",
    "call model", "provider", "purpose", "call error", "stop reason", "opinion", "opinion author", "item reason", "processing",
)  # fmt: skip
MARK = "the-text-of-choice"
Text = Callable[[str], str]
_FINGERPRINT = Fingerprint("m", "w" * 64, "t" * 64, "float32", "b", "1", "{}")
_NUMBERS = {"f1": 0.9, "precision": 0.8, "coverage": 0.7, "base_rate": 0.01, "ap": 0.5, "r": 0.4, "e": 1e5}
_RIVAL: dict[str, Any] = {
    "f1": 0.3,
    "difference": 0.6,
    "difference_low": 0.5,
    "complexity": 1,
    "agreement": 0.2,
    "difference_high": 0.9,
    "lacked_leaf_e": None,
}
_CASE: dict[str, Any] = {
    "complexity": 2, "n_claims": 1, "places": 50, "precision": 0.8, "precision_low": 0.7, "coverage": 0.7, "coverage_low": 0.6, "f1": 0.9,
    "base_rate": 0.01, "ap": 0.5, "ap_null": 0.0, "r_low": 0.3, "dense": False, "graded": False, "bets": (1.0,) * 17, "leaf_e": {},
    "rarer_half_precision": None, "modes": (),
}  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """Where a field's text can be seen: the trail of its run, the page of its unit, and a row or a picture that holds it."""

    field: str
    run: str
    unit: str
    row: str

    @property
    def pages(self) -> tuple[str, str, str]:
        """Their addresses."""
        return Served().run(self.run), self.unit, self.row


def fill(path: Path, text: str) -> list[Placed]:
    """A new notebook with the text in each field; in the run of one field it stands in that field alone."""
    path.write_bytes(_template())
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.create_function("put", 1, lambda value: _put(value, text))
        for (trigger,) in db.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            db.execute(f'drop trigger "{trigger}"')
        for table in schema.metadata.sorted_tables:
            if table.name not in ("ledger", "schema_migration", "allowed_transition"):
                changed = ", ".join(f'"{column.name}" = put("{column.name}")' for column in table.columns)
                db.execute(f'update "{table.name}" set {changed}')
    with Notebook(path) as notebook:
        notebook.rebuild_index()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("pragma journal_mode = delete")
    with Notebook(path, read_only=True) as notebook:
        return list(_placed(notebook))


def _put(value: Any, text: str) -> Any:
    """A value of a column with the text in place of the mark, escaped where it is JSON."""
    if isinstance(value, bytes):
        return _put(value.decode(), text).encode("utf-8", "replace") if MARK.encode() in value else value
    if not isinstance(value, str) or MARK not in value:
        return value
    return value.replace(MARK, json.dumps(text)[1:-1] if value[:1] in ("{", "[") else text.replace("\0", "\ufffd"))


@cache
def _template() -> bytes:
    """The notebook with a mark in place of the text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.db"
        with Notebook(path) as notebook, notebook.together():
            for at, field in enumerate(FIELDS):
                _fill(notebook, at, field)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("pragma journal_mode = delete")
        return path.read_bytes()


def _placed(notebook: Notebook) -> Iterator[Placed]:
    models = Models.read(notebook)
    for field, row in zip(FIELDS, notebook.rows(schema.run.select().order_by(schema.run.c.id)), strict=True):
        run = queries.find_run(notebook, row["id"])
        (claim,) = queries.hypotheses(notebook, row["id"])
        tested, looked, _ = queries.experiments(notebook, row["id"])
        own = Served().record(run["target"]["id"] if field == "processing" else claim["id"])
        if field in ("subject", "evidence metric", "unit of measure"):
            own = Served().record(tested["evidence"][0]["id"])
        if field == "figure":
            own = Served().artifact(looked["result"]["figures"][0]["svg"], "svg")
        if field == "item reason":
            own = Served().batch(row["id"])
        unit = Served().unit(models.slug(run["target"]["id"]), claim["address"])
        yield Placed(field, row["id"], unit, own)


def _fill(notebook: Notebook, at: int, field: str) -> None:
    def t(name: str) -> str:
        return MARK if name == field else name

    target = replace(_FINGERPRINT, name=t("model"), processing=t("processing"))
    run = notebook.start_run({"question": t("question"), "seed": at}, target, (t("corpus"), "c" * 64, 1000))
    unit = Unit.of_task(MARK) if field == "address" else Unit("neuron", 3, at)
    claim = _claim(notebook, run, unit, t)
    _experiments(notebook, run, unit, t)
    _calls(notebook, run, t)
    notebook.outcome(
        run, unit.with_sign(-1) if unit.kind == "neuron" else unit, t("outcome side"), "ABSTAINED", t("outcome reason")
    )
    notebook.review("hypothesis", claim, t("opinion author"), "comment", t("opinion"))
    cost = {"forwards": 1.0, "seconds": 2.0, "usd": 0.1, "tokens": 3, "llm_calls": 1}
    notebook.end_run(run, "answered", t("run reason"), cost)
    if field == "item reason":
        _batch(notebook, run)


def _claim(notebook: Notebook, run: str, unit: Unit, t: Text) -> str:
    predicate = canonical_json(parse_text(f"token({t('predicate')!r})"))
    row = {
        "side": "reads",
        "claim": t("claim"),
        "predicate": predicate,
        "complexity": 2,
        "author": t("author"),
        "words": t("words"),
    }
    claim = notebook.add_hypothesis(run, unit, row)
    made = {
        "metric": t("metric"),
        "comparator": ">",
        "threshold": 0.0,
        "baseline": t("baseline"),
        "split": t("split"),
        "payload": {"h": claim},
    }
    prediction = notebook.register(claim, made)
    begun = notebook.begin_experiment(
        run, ExperimentSpec("test_reads", "0" * 64, {"unit": unit.address, "h": claim}), prediction=prediction
    )
    measured = [
        (
            t("subject"),
            Measurement(
                t("evidence metric") if name == "r" else name, value, t("unit of measure"), 321, None, 0.0, 97.0
            ),
        )
        for name, value in _NUMBERS.items()
    ]
    payload = {"unexplained": {"share": 0.1, "tokens": []}}
    evidence = notebook.end_experiment(begun.id, {"payload": payload, "measurements": []}, evidence=measured)
    case = ReadsCase(**_CASE, rivals=(Rival(claim=t("rival"), **_RIVAL),))
    notebook.verdict(prediction, case, Decision("SUPPORTED", t("verdict reason"), 1e5), evidence)
    return claim


def _experiments(notebook: Notebook, run: str, unit: Unit, t: Text) -> None:
    """A look with contexts, a table, a figure and facts, and one that failed."""
    args = {"unit": unit.address, t("argument name"): t("argument"), "seed": run}
    look = notebook.begin_experiment(run, ExperimentSpec(t("tool"), "0" * 64, args))
    strip = {"document": 7, "pieces": ["After", t("piece"), " met"], "activations": [0.0, 2.0, -0.1], "centre": 1, "activation": 2.0,
             "predicted": [0.0, 1.0, 0.0], "note": t("note")}  # fmt: skip
    payload = {
        "unit": unit.address, "threshold": 0.9, t("result name"): t("result"), "rows": [{t("column"): t("cell"), "drop": 0.5}],
        "bands": {"top": {"rule": t("rule"), "examples": [strip]}}, "histogram": {"edges": [0.0, 1.0, 2.0], "counts": [9, 1]},
    }  # fmt: skip
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><title>{t("figure")}</title></svg>'
    picture = notebook.artifact(svg.encode("utf-8", "replace"), "image/svg+xml")
    figures = [{"name": t("figure name"), "svg": picture}]
    notebook.end_experiment(look.id, {"payload": payload, "measurements": [], "figures": figures}, spent=(2.5, 10.0))
    failed = notebook.begin_experiment(
        run, ExperimentSpec("test_reads", "0" * 64, {"unit": unit.address, "again": run})
    )
    notebook.end_experiment(failed.id, None, error=t("error"))


def _calls(notebook: Notebook, run: str, t: Text) -> None:
    body = {"system": "You name features.", "messages": [{"role": "user", "content": t("prompt")}]}
    sent = {
        "provider": t("provider"),
        "model": t("call model"),
        "request": json.dumps(body),
        "request_sha256": "r" * 64,
    }
    numbers = {"answered_by": t("call model"), "tokens_in": 3, "tokens_out": 2, "usd_micro": 1, "seconds": 1.5}
    call = notebook.begin_call(run, {"purpose": t("purpose"), **sent})
    notebook.end_call(call, {**numbers, "response": t("reply"), "stop_reason": t("stop reason")})
    lost = notebook.begin_call(run, {"purpose": "tell", **sent})
    notebook.end_call(lost, {"error": t("call error"), "seconds": 0.1})


def _batch(notebook: Notebook, run: str) -> None:
    notebook.add_items(run, [("3.1", None, MARK), ("3.2", MARK, MARK)])
    (item, *_) = notebook.lease(run, "me", now=0.0, until=1e12, limit=1, alive=lambda _: True)
    notebook.begin_item(item, run)
    notebook.end_item(item, "failed", MARK)
