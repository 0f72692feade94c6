"""What earlier runs found out about a unit: it is shown, to proposers too, and never counts as evidence."""

from dataclasses import dataclass

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.store import Store
from neuronaut.tools.units import Unit


@dataclass(frozen=True)
class Finding:
    """A claim that an earlier run judged. same_inputs: corpus and tool source are those of now, so that it is not stale."""

    claim: str
    predicate: str
    side: str
    status: str
    run: str
    hypothesis: str
    same_inputs: bool


def earlier_findings(notebook: Store, run: str, unit: Unit, tools_sha256: str) -> list[Finding]:
    """Judged claims of earlier runs on the same unit (and sign) of the same weights, the oldest first; repeats left out.

    run: the one that asks now; runs that began after it are not earlier.
    """
    h, u, r, t, p = schema.hypothesis, schema.unit, schema.run, schema.target_model, schema.prediction
    now = queries.find_run(notebook, run)
    joined = h.join(u, u.c.id == h.c.unit).join(r, r.c.id == h.c.run).join(t, t.c.id == u.c.target)
    joined = joined.join(p, p.c.hypothesis == h.c.id)
    columns = (h.c.id, h.c.claim, h.c.predicate, h.c.side, h.c.run, r.c.corpus, p.c.id.label("prediction"))
    where = (t.c.weights_sha256 == now["target"]["weights_sha256"], t.c.processing == now["target"]["processing"],
             u.c.address == unit.address, r.c.id < run, r.c.parent_run.is_(None))  # fmt: skip
    rows = notebook.rows(sa.select(*columns).select_from(joined).where(*where).order_by(h.c.id))
    verdicts = queries.verdicts(notebook, [row["prediction"] for row in rows])
    states = queries.states(notebook, [row["id"] for row in rows])
    sources = queries.tool_sources(notebook, [row["prediction"] for row in rows])
    return [
        Finding(
            row["claim"], row["predicate"], row["side"], str(verdicts[row["prediction"]][-1]["outcome"]), row["run"], row["id"],
            row["corpus"] == now["corpus"]["id"] and sources[row["prediction"]] == {tools_sha256},
        )
        for row in rows
        if verdicts[row["prediction"]] and states[row["id"]] not in ("superseded", "withdrawn")
    ]  # fmt: skip
