"""Experiments as rows: begun, then ended with a result or an error, their evidence and their artifacts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import ledger, schema
from neuronaut.memory.calls import Calls
from neuronaut.memory.store import new_id, now
from neuronaut.tools.measurements import Measurement


@dataclass(frozen=True)
class Started:
    """An experiment that was begun; `finished` is the stored result when the same one was already done."""

    id: str
    finished: dict[str, Any] | None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExperimentSpec:
    """What decides an experiment's result: equal specs on one target are the same experiment.

    dictionaries: name and hash of those that the arguments name.
    """

    tool: str
    tool_sha256: str
    args: dict[str, Any]
    seed: int = 0
    dictionaries: Mapping[str, str] = field(default_factory=dict)


class Experiments(Calls):
    """What is recorded of experiments; equal ones are done once."""

    def finished(self, run: str, spec: ExperimentSpec, *, fresh: bool = False) -> Started | None:
        """The same experiment done before in this notebook (`fresh`: in this run), None when it is still to be done."""
        with self.snapshot():
            return self._finished(self._key(run, spec)["key"], run if fresh else None)

    def _key(self, run: str, spec: ExperimentSpec) -> dict[str, Any]:
        """The columns that say which experiment this is; equal keys give equal results."""
        r = schema.run.c
        target, corpus = self._db.execute(sa.select(r.target, r.corpus).where(r.id == run)).one()
        body = {
            "tool": spec.tool,
            "tool_sha256": spec.tool_sha256,
            "args": ledger.canonical(spec.args),
            "seed": spec.seed,
        }
        more = {"dictionaries": dict(spec.dictionaries)} if spec.dictionaries else {}
        key = ledger.sha256(ledger.canonical({**body, "target": target, "corpus": corpus, **more}))
        return {**body, "corpus": corpus, "key": key}

    def begin_experiment(
        self,
        run: str,
        spec: ExperimentSpec,
        *,
        prediction: str | None = None,
        repeat_of: str | None = None,
        fresh: bool = False,
    ) -> Started:
        """An experiment to be done, or the stored result of the same one done before (`fresh`: in this run only)."""
        with self._writing():
            row = self._key(run, spec)
            if done := self._finished(row["key"], run if fresh else None):
                return done
            more = {"id": new_id(), "run": run, "prediction": prediction, "repeat_of": repeat_of, "started": now()}
            return Started(self._insert(schema.experiment, {**row, **more}), None)

    def _finished(self, key: str, run: str | None) -> Started | None:
        e, end, a = schema.experiment, schema.experiment_end, schema.artifact
        joined = e.join(end, end.c.experiment == e.c.id).join(a, a.c.id == end.c.result)
        statement = sa.select(e.c.id, a.c.content).select_from(joined).where(e.c.key == key, end.c.outcome == "ok")
        if run is not None:
            statement = statement.where(e.c.run == run)
        row = self._db.execute(statement.order_by(e.c.id).limit(1)).first()
        if row is None:
            return None
        cited = schema.evidence
        ids = self._db.execute(sa.select(cited.c.id).where(cited.c.experiment == row[0]).order_by(cited.c.id)).scalars()
        return Started(str(row[0]), json.loads(row[1]), tuple(ids))

    def end_experiment(
        self, experiment: str, result: Mapping[str, Any] | None, *, error: str | None = None, refused: bool = False,
        spent: tuple[float, float] = (0.0, 0.0), evidence: Sequence[tuple[str, Measurement]] = (),
    ) -> tuple[str, ...]:  # fmt: skip
        """The end of an experiment with its result or its error; `evidence` pairs a subject (a claim) with a measurement.

        spent: seconds and forwards. Returns the evidence ids.
        """
        with self._writing():
            stored = (
                None if result is None else self._artifact(ledger.canonical(dict(result)).encode(), "application/json")
            )
            outcome = "ok" if error is None else "refused" if refused else "failed"
            end = {"id": new_id(), "experiment": experiment, "outcome": outcome, "error": error, "result": stored}
            self._insert(schema.experiment_end, {**end, "seconds": spent[0], "forwards": spent[1]})
            return tuple(self._evidence(experiment, subject, m) for subject, m in evidence)

    def _evidence(self, experiment: str, subject: str, m: Measurement) -> str:
        low, high = m.ci or (None, None)
        row = {
            "id": new_id(), "experiment": experiment, "subject": subject, "metric": m.metric, "value": m.value, "unit_of_measure": m.unit,
            "n": m.n, "ci_low": low, "ci_high": high, "null_value": m.null_value, "null_percentile": m.null_percentile,
        }  # fmt: skip
        return self._insert(schema.evidence, row)

    def artifact(self, content: bytes, media_type: str) -> str:
        """The id sha256:… under which the bytes are kept."""
        with self._writing():
            return self._artifact(content, media_type)

    def _artifact(self, content: bytes, media_type: str) -> str:
        identifier = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self._db.execute(sa.select(schema.artifact.c.id).where(schema.artifact.c.id == identifier)).scalar() is None:
            row = {"id": identifier, "media_type": media_type, "n_bytes": len(content), "content": content}
            self._insert(schema.artifact, row)
        return identifier
