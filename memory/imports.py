"""Explanations that others made, as hypotheses: which of them were tested before, and what came of each."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.ledger import canonical
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.store import Store
from neuronaut.tools.units import Unit

Row = dict[str, Any]
QUESTION = "neuronaut import: "  # how the question of such a run begins
IN_WORDS = "untestable"  # the kind of what stands in the place of a predicate
SAME = "the same predicate as hypothesis "


def add_explanation(
    notebook: Notebook, run: str, unit: Unit, row: Mapping[str, Any], refused: str | None = None
) -> str:
    """The id of an explanation as a hypothesis of its author. row: author, words (its key), side, claim, predicate, complexity.

    refused: why it is untestable, else None. The same one twice in a run is one; other words for a predicate that the author
    has brought before lead to that one.
    """
    author, words = str(row["author"]), str(row["words"])
    with notebook.together():
        if known := of_key(notebook, run, unit, author, words):
            return known
        if refused is not None:
            return _in_words(notebook, run, unit, row, ("untestable", refused))
        own = notebook.add_hypothesis(run, unit, row)
        if of_key(notebook, run, unit, author, words) != own:
            _in_words(notebook, run, unit, row, ("withdrawn", f"{SAME}{own}"))
        return own


def _in_words(notebook: Notebook, run: str, unit: Unit, row: Mapping[str, Any], moved: tuple[str, str]) -> str:
    words = str(row["words"])
    said = {
        "claim": f"in words only: {words}",
        "predicate": canonical({"kind": IN_WORDS, "text": words}),
        "complexity": 0,
    }
    identifier = notebook.add_hypothesis(run, unit, {**row, **said})
    notebook.move(identifier, moved[0], reason=moved[1])
    return identifier


def of_key(notebook: Store, run: str, unit: Unit, author: str, words: str) -> str | None:
    """The hypothesis of a run that an explanation became; None where it became none."""
    h, u = schema.hypothesis, schema.unit
    where = (h.c.run == run, u.c.address == unit.address, h.c.author == author, h.c.words == words)
    found = notebook.rows(sa.select(h.c.id).join(u, u.c.id == h.c.unit).where(*where).order_by(h.c.id).limit(1))
    return str(found[0]["id"]) if found else None


def earlier(notebook: Store, author: str, target: Mapping[str, str], corpus_sha256: str) -> dict[tuple[str, str], Row]:
    """What came of the author's explanations on a model and a text, by address and words; the newest where there are several.

    target: weights_sha256 and processing. Left out: those of a run that was stopped before it came to them.
    """
    h, u, r, t, c = schema.hypothesis, schema.unit, schema.run, schema.target_model, schema.corpus
    joined = (
        h.join(u, u.c.id == h.c.unit)
        .join(r, r.c.id == h.c.run)
        .join(t, t.c.id == r.c.target)
        .join(c, c.c.id == r.c.corpus)
    )
    where = (h.c.author == author, h.c.words.is_not(None), c.c.sha256 == corpus_sha256, r.c.parent_run.is_(None),
             r.c.question.startswith(QUESTION, autoescape=True), *(t.c[name] == value for name, value in target.items()))  # fmt: skip
    columns = (h.c.id, h.c.run, h.c.side, h.c.words, h.c.predicate, u.c.address)
    rows = notebook.rows(sa.select(*columns).select_from(joined).where(*where).order_by(h.c.id))
    came = results(notebook, rows)
    return {(row["address"], row["words"]): came[row["id"]] for row in rows if row["id"] in came}


def results(notebook: Store, rows: list[Row]) -> dict[str, Row]:
    """Status, reason, F1 with its interval, run and predicate (None: in words only) of hypotheses by id; those that their run
    has not come to yet are missing. rows: id, run, side, predicate."""
    ids = [row["id"] for row in rows]
    predictions = queries.grouped(notebook, schema.prediction, "hypothesis", ids)
    of = queries.verdicts(notebook, [p["id"] for ps in predictions.values() for p in ps])
    moves = queries.grouped(notebook, schema.hypothesis_status, "hypothesis", ids)
    runs = list({row["run"] for row in rows})
    ended = queries.grouped(notebook, schema.run_end, "run", runs)
    outcomes = queries.grouped(notebook, schema.outcome, "run", runs)
    found = {}
    for row in rows:
        verdicts = [v for p in predictions[row["id"]] for v in of[p["id"]]]
        if came := _came(row, verdicts, moves[row["id"]], ended[row["run"]], outcomes[row["run"]]):
            predicate = None if json.loads(row["predicate"])["kind"] == IN_WORDS else row["predicate"]
            found[row["id"]] = {"hypothesis": row["id"], "run": row["run"], "predicate": predicate, **came}
    for row in rows:
        last = moves[row["id"]][-1]["reason"] if moves[row["id"]] else ""
        if last.startswith(SAME) and (same := found.get(last.removeprefix(SAME))):
            found[row["id"]] = same
    return found


def _came(row: Row, verdicts: list[Row], moves: list[Row], ended: list[Row], outcomes: list[Row]) -> Row | None:
    if verdicts:
        measured = {e["metric"]: e for e in verdicts[-1]["evidence"]}
        f1 = measured.get("f1", {})
        score = {"f1": f1.get("value"), "f1_low": f1.get("ci_low"), "f1_high": f1.get("ci_high")}
        return {"status": verdicts[-1]["outcome"], "reason": verdicts[-1]["reason"], **score}
    score = dict.fromkeys(("f1", "f1_low", "f1_high"))
    if moves and moves[-1]["to_state"] == "untestable":
        return {"status": "UNTESTABLE", "reason": moves[-1]["reason"], **score}
    if ended and ended[-1]["outcome"] == "answered":
        why = [one for one in outcomes if one["side"] == row["side"]]
        return {"status": why[-1]["status"], "reason": why[-1]["reason"], **score} if why else None
    return None


def open_run(
    notebook: Store, question: str, config: Mapping[str, Any], target: Mapping[str, str], corpus_sha256: str
) -> str | None:
    """A run with the same question and settings, budget aside, that was begun and not answered, the newest."""
    r, t, c, end = schema.run, schema.target_model, schema.corpus, schema.run_end
    joined = r.join(t, t.c.id == r.c.target).join(c, c.c.id == r.c.corpus)
    answered = sa.exists().where(end.c.run == r.c.id, end.c.outcome == "answered")
    where = (
        r.c.question == question,
        c.c.sha256 == corpus_sha256,
        ~answered,
        *(t.c[name] == value for name, value in target.items()),
    )
    for row in notebook.rows(sa.select(r.c.id, r.c.config).select_from(joined).where(*where).order_by(r.c.id.desc())):
        if _settings(json.loads(row["config"])) == _settings(config):
            return str(row["id"])
    return None


def _settings(config: Mapping[str, Any]) -> Row:
    return {name: value for name, value in config.items() if name not in ("budget", "again")}
