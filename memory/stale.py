"""Findings about earlier weights of a model: what was SUPPORTED there, and what became of it for the weights of a run."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.store import Store
from neuronaut.tools.errors import UserError

SHORTEST_HASH = 6  # digits of a hash by which weights may be named


@dataclass(frozen=True)
class Stale:
    """A claim that was SUPPORTED for other weights than those of now. block: the confirm block of its test, on the corpus of
    that id; dictionary: the hash of that of a feature; payload: of its prediction."""

    hypothesis: str
    run: str
    address: str
    side: str
    claim: str
    predicate: str
    complexity: int
    author: str
    words: str | None
    weights: str
    dictionary: str | None
    corpus: str
    block: int
    payload: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two claims the same: unit, side and predicate."""
        return self.address, self.side, self.predicate


def earlier_models(notebook: Store, target: dict[str, Any], of: str) -> list[dict[str, Any]]:
    """The target models of the notebook that `of` names, by name or by the beginning of the hash of their weights, but for the
    one with the weights of `target`; with "" those of its name. Refuses one with another tokenizer, and says which there are."""
    t = schema.target_model
    rows = notebook.rows(sa.select(t).where(t.c.weights_sha256 != target["weights_sha256"]).order_by(t.c.id))
    named = of or target["name"]
    hashed = len(of) >= SHORTEST_HASH
    found = [r for r in rows if r["name"] == named or (hashed and r["weights_sha256"].startswith(of))]
    if not found:
        there = sorted({f"{row['name']} ({row['weights_sha256'][:12]})" for row in rows})
        known = f"it knows {', '.join(there[:8])}" if there else "it knows no other weights"
        raise UserError(
            f"the notebook has nothing about earlier weights called {named!r} ({known}): name them with --of NAME, or --of HASH"
        )
    if unlike := [row for row in found if row["tokenizer_sha256"] != target["tokenizer_sha256"]]:
        raise UserError(
            f"{unlike[0]['name']} ({unlike[0]['weights_sha256'][:12]}) has another tokenizer than {target['name']}, so that its claims "
            "name other tokens: watch checkpoints that share one"
        )
    return found


def stale_findings(notebook: Store, run: str, of: str) -> list[Stale]:
    """What runs before this one found SUPPORTED for earlier weights of its model, by unit; of the same claim the newest."""
    now = queries.find_run(notebook, run)
    models = [row["id"] for row in earlier_models(notebook, now["target"], of)]
    found = {row.key: row for row in _supported(notebook, models, run)}
    return sorted(found.values(), key=lambda row: (row.side == "circuit", row.address, row.side, row.hypothesis))


def judged_now(
    notebook: Store, run: str, keys: Iterable[tuple[str, str, str]]
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The newest verdict, up to this run, on each of some claims about the weights of the run, with its case, and the `run`,
    the `prediction` and the `corpus` of its test."""
    now, wanted = queries.find_run(notebook, run)["target"], set(keys)
    h, u, r, t, p, v = _tables()
    joined = h.join(u, u.c.id == h.c.unit).join(r, r.c.id == h.c.run).join(t, t.c.id == u.c.target)
    joined = joined.join(p, p.c.hypothesis == h.c.id).join(v, v.c.prediction == p.c.id)
    columns = (
        h.c.id,
        h.c.run,
        h.c.side,
        h.c.predicate,
        u.c.address,
        v.c.outcome,
        v.c.reason,
        v.c.case,
        r.c.corpus,
        p.c.id.label("prediction"),
        p.c.split,
    )
    where = (t.c.weights_sha256 == now["weights_sha256"], t.c.processing == now["processing"], h.c.run <= run)
    rows = notebook.rows(sa.select(*columns).select_from(joined).where(*where).order_by(v.c.id))
    return {key: row for row in rows if (key := (row["address"], row["side"], row["predicate"])) in wanted}


def places_of(notebook: Store, models: Iterable[str]) -> list[tuple[str, str]]:
    """Weights, and where a run found them (`pocket`, a folder or a name of the hub), of some target models; the newest first."""
    r, t = schema.run, schema.target_model
    joined = sa.select(t.c.weights_sha256, r.c.config).join(r, r.c.target == t.c.id)
    rows = notebook.rows(joined.where(t.c.id.in_(list(models))).order_by(r.c.id.desc()))
    found = ((row["weights_sha256"], queries.parsed(row["config"], "a run").get("model")) for row in rows)
    return list(dict.fromkeys((weights, str(place)) for weights, place in found if place))


def done_elsewhere(notebook: Store, run: str, tool: str) -> list[dict[str, Any]]:
    """All ended experiments of a tool about the weights of the run, up to it, in order: args, corpus, result (None: it failed,
    and `error` says why), seconds and forwards."""
    target = queries.find_run(notebook, run)["target"]["id"]
    e, r, end, kept = schema.experiment, schema.run, schema.experiment_end, schema.artifact
    joined = (
        e.join(r, r.c.id == e.c.run).join(end, end.c.experiment == e.c.id).outerjoin(kept, kept.c.id == end.c.result)
    )
    columns = (e.c.id, e.c.run, e.c.args, e.c.corpus, kept.c.content, end.c.error, end.c.seconds, end.c.forwards)
    where = (e.c.tool == tool, r.c.target == target, e.c.run <= run)
    rows = notebook.rows(sa.select(*columns).select_from(joined).where(*where).order_by(e.c.id))
    for row in rows:
        where_from, content = f"experiment {row['id']}", row.pop("content")
        row["args"] = queries.parsed(row["args"], where_from)
        row["result"] = None if content is None else queries.parsed(content, where_from)
    return rows


def _supported(notebook: Store, models: list[str], run: str) -> list[Stale]:
    h, u, r, _, p, v = _tables()
    joined = h.join(u, u.c.id == h.c.unit).join(r, r.c.id == h.c.run)
    joined = joined.join(p, p.c.hypothesis == h.c.id).join(v, v.c.prediction == p.c.id)
    t, d = schema.target_model, schema.dictionary
    joined = joined.join(t, t.c.id == u.c.target).outerjoin(d, d.c.id == u.c.dictionary)
    columns = (h, u.c.address, t.c.weights_sha256, d.c.sha256, r.c.corpus, p.c.split, p.c.payload)
    where = (u.c.target.in_(models), v.c.outcome == "SUPPORTED", h.c.run < run, r.c.parent_run.is_(None))
    rows = notebook.rows(sa.select(*columns).select_from(joined).where(*where).order_by(h.c.id))
    return [
        Stale(
            row["id"], row["run"], row["address"], row["side"], row["claim"], row["predicate"], row["complexity"], row["author"],
            row["words"], row["weights_sha256"], row["sha256"], row["corpus"], int(row["split"].partition("/")[2]),
            queries.parsed(row["payload"], f"a prediction about hypothesis {row['id']}"),
        )
        for row in rows
    ]  # fmt: skip


def _tables() -> tuple[sa.Table, ...]:
    s = schema
    return s.hypothesis, s.unit, s.run, s.target_model, s.prediction, s.verdict
