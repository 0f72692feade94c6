"""The notebook of findings: the only writer of the database. Rows are only added, each with its ledger line."""

import functools
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import neuronaut
from neuronaut.memory import ledger, schema
from neuronaut.memory.calls import Calls
from neuronaut.memory.judge import RULE_VERSION, Case, Decision
from neuronaut.memory.store import new_id, now
from neuronaut.tools.errors import UserError
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.targets.fingerprint import Fingerprint
from neuronaut.tools.units import Unit

PACKAGES = ("neuronaut", "torch", "transformer-lens", "transformers", "numpy", "scipy")


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


class Notebook(Calls):
    """What is recorded, one method for each kind of record; language-model calls in `calls`, reading in `queries`."""

    # Runs

    def start_run(
        self,
        config: Mapping[str, Any],
        fingerprint: Fingerprint,
        corpus: tuple[str, str, int],
        *,
        parent: str | None = None,
    ) -> str:
        """A new run for the question of `config` (question, seed, …) on a target and a corpus (name, sha256, characters).

        Refuses a dictionary under a name that has other weights in this notebook.
        """
        with self._writing():
            self._refuse_other_weights(config, fingerprint)
            target = self._known(schema.target_model, asdict(fingerprint))
            name, sha256, n_characters = corpus
            known = self._known(schema.corpus, {"name": name, "sha256": sha256, "n_characters": n_characters})
            return self._insert(
                schema.run,
                {
                    "id": new_id(), "question": config["question"], "target": target, "corpus": known, "parent_run": parent,
                    "code_version": neuronaut.__version__, "code_commit": commit(),
                    "packages": ledger.canonical({name: version(name) for name in PACKAGES}),
                    "config": ledger.canonical(dict(config)), "seed": config["seed"], "started": now(),
                },
            )  # fmt: skip

    def end_run(self, run: str, outcome: str, reason: str, cost: Mapping[str, Any]) -> None:
        """How the run ended: answered, gave_up, out_of_budget, cancelled or error."""
        with self._writing():
            row = {
                "id": new_id(),
                "run": run,
                "outcome": outcome,
                "reason": reason,
                "cost": ledger.canonical(dict(cost)),
                "ended": now(),
            }
            self._insert(schema.run_end, row)

    def unit(self, run: str, unit: Unit) -> str:
        """The id of a unit of the run's target."""
        with self._writing():
            return self._unit(run, unit)

    def _unit(self, run: str, unit: Unit) -> str:
        r = schema.run.c
        target, config = self._db.execute(sa.select(r.target, r.config).where(r.id == run)).one()
        layer, dictionary = unit.layer, None
        if unit.kind == "feature":
            used = json.loads(config)["dictionaries"][unit.name]
            about = {name: used[name] for name in ("sha256", "architecture", "site", "layer", "width")}
            layer, dictionary = used["layer"], self._known(schema.dictionary, {"name": unit.name, **about})
        return self._known(
            schema.unit,
            {
                "target": target,
                "kind": unit.kind,
                "layer": layer,
                "index": unit.index,
                "sign": unit.sign,
                "address": unit.address,
                "dictionary": dictionary,
            },
        )

    def _refuse_other_weights(self, config: Mapping[str, Any], fingerprint: Fingerprint) -> None:
        """Claims about a feature would else be taken for claims about another one of the same name."""
        d, u, t = schema.dictionary, schema.unit, schema.target_model
        joined = d.join(u, u.c.dictionary == d.c.id).join(t, t.c.id == u.c.target)
        for name, used in config.get("dictionaries", {}).items():
            where = (d.c.name == name, d.c.sha256 != used["sha256"], t.c.weights_sha256 == fingerprint.weights_sha256)
            if known := self._db.execute(sa.select(d.c.sha256).select_from(joined).where(*where).limit(1)).scalar():
                raise UserError(
                    f"in this notebook {name!r} names a dictionary with other weights ({known[:12]}, not {used['sha256'][:12]}): "
                    f"register this one under another name, as --dictionary OTHER={used['folder'] or 'FOLDER'}"
                )

    # Hypotheses and predictions

    def add_hypothesis(self, run: str, unit: Unit, row: Mapping[str, Any]) -> str:
        """A proposed hypothesis (side, claim, predicate, complexity, author); the same one twice in a run is one."""
        with self._writing():
            key = {
                "run": run,
                "unit": self._unit(run, unit),
                **{name: row[name] for name in ("side", "predicate", "author")},
            }
            where = [schema.hypothesis.c[name] == value for name, value in key.items()]
            if found := self._db.execute(sa.select(schema.hypothesis.c.id).where(*where)).scalar():
                return str(found)
            identifier = self._insert(schema.hypothesis, {"id": new_id(), **key, **dict(row)})
            self._insert(
                schema.hypothesis_status, {"hypothesis": identifier, "seq": 0, "to_state": "proposed", "reason": ""}
            )
            return identifier

    def move(self, hypothesis: str, to: str, *, verdict: str | None = None, reason: str = "") -> None:
        """Move a hypothesis to another status; the database refuses what is not allowed."""
        with self._writing():
            self._move(hypothesis, to, verdict, reason)

    def _move(self, hypothesis: str, to: str, verdict: str | None, reason: str) -> None:
        status = schema.hypothesis_status
        statement = sa.select(status.c.seq, status.c.to_state).where(status.c.hypothesis == hypothesis)
        seq, state = self._db.execute(statement.order_by(status.c.seq.desc()).limit(1)).one()
        row = {
            "hypothesis": hypothesis,
            "seq": seq + 1,
            "prev_seq": seq,
            "from_state": state,
            "to_state": to,
            "verdict": verdict,
            "reason": reason,
        }
        self._insert(status, row)

    def register(self, hypothesis: str, row: Mapping[str, Any]) -> str:
        """A frozen prediction (metric, comparator, threshold, baseline, split, payload); the same one twice is one."""
        with self._writing():
            payload = ledger.canonical(row["payload"])
            body = {**dict(row), "payload": payload, "hypothesis": hypothesis}
            digest = ledger.sha256(ledger.canonical(body))
            where = (schema.prediction.c.hypothesis == hypothesis, schema.prediction.c.sha256 == digest)
            if found := self._db.execute(sa.select(schema.prediction.c.id).where(*where)).scalar():
                return str(found)
            identifier = self._insert(schema.prediction, {"id": new_id(), **body, "sha256": digest})
            statement = sa.select(schema.hypothesis_status.c.to_state).where(
                schema.hypothesis_status.c.hypothesis == hypothesis
            )
            state = self._db.execute(statement.order_by(schema.hypothesis_status.c.seq.desc()).limit(1)).scalar_one()
            if state == "proposed":
                self._move(hypothesis, "registered", None, "")
            return identifier

    # Experiments

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

    # Verdicts

    def verdict(self, prediction: str, case: Case, decision: Decision, evidence: Sequence[str]) -> str:
        """A verdict with the case it follows from, and the hypothesis moved to it; once for each prediction."""
        with self._writing():
            if found := self._db.execute(
                sa.select(schema.verdict.c.id).where(schema.verdict.c.prediction == prediction)
            ).scalar():
                return str(found)
            row = {
                "id": new_id(), "prediction": prediction, "outcome": decision.status, "rule_version": RULE_VERSION,
                "reason": decision.reason, "e": decision.e, "case": ledger.canonical(case.model_dump(mode="json")),
            }  # fmt: skip
            identifier = self._insert(schema.verdict, row)
            for one in evidence:
                self._insert(schema.verdict_evidence, {"verdict": identifier, "evidence": one})
            where = schema.prediction.c.id == prediction
            hypothesis = self._db.execute(sa.select(schema.prediction.c.hypothesis).where(where)).scalar_one()
            self._move(hypothesis, "testing", None, "")
            self._move(hypothesis, decision.status.lower(), identifier, decision.reason)
            return identifier

    def outcome(self, run: str, unit: Unit, side: str, status: str, reason: str) -> None:
        """An outcome of a unit and side without a prediction, such as ABSTAINED; once for each run."""
        with self._writing():
            key = {"run": run, "unit": self._unit(run, unit), "side": side, "status": status, "reason": reason}
            self._known(schema.outcome, key)

    # Opinions

    def review(self, table: str, record: str, author: str, verb: str, reason: str) -> str:
        """What a person says of a record: agree, dispute, invalidate or comment. It changes no verdict."""
        with self._writing():
            row = {"target_table": table, "target_id": record, "author": author, "verb": verb, "reason": reason}
            return self._insert(schema.review, {"id": new_id(), **row})

    # Blocks of confirm text

    def open_block(self, run: str, unit: Unit, side: str, *, limit: int = 3, but: int | None = None) -> int | None:
        """The next fresh confirm block for a unit and side, recorded as opened; None when all have been used. but: one that
        is not taken, since what is to be tested was chosen by it.

        The prompts of a circuit's test do not come from a corpus, so that another corpus makes none of them fresh.
        """
        with self._writing():
            row = self._db.execute(sa.select(schema.run).where(schema.run.c.id == run)).mappings().one()
            key = {"unit": self._unit(run, unit), "side": side, "corpus": row["corpus"]}
            same = ("unit", "side") if side == "circuit" else ("unit", "side", "corpus")
            where = [schema.block_opened.c[name] == key[name] for name in same]
            used = set(self._db.execute(sa.select(schema.block_opened.c.block).where(*where)).scalars())
            block = next((one for one in range(limit) if one not in used and one != but), None)
            if block is None:
                return None
            self._insert(schema.block_opened, {"id": new_id(), "run": run, **key, "block": block})
            return block


@functools.cache
def commit() -> str | None:
    """The commit of a source checkout, with a mark when it was changed; None when installed."""
    folder = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def version(name: str) -> str:
    """The installed version of a package, or absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
