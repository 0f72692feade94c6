"""The notebook of findings: the only writer of the database. Rows are only added, each with its ledger line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

import neuronaut
from neuronaut.memory import ledger, schema
from neuronaut.memory.experiments import Experiments
from neuronaut.memory.judge import RULE_VERSION, Case, Decision
from neuronaut.memory.provenance import PACKAGES, commit, version
from neuronaut.memory.store import new_id, now
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.fingerprint import Fingerprint
from neuronaut.tools.units import Unit


class Notebook(Experiments):
    """What is recorded, one method for each kind of record; experiments in `experiments`, language-model calls in `calls`, reading in `queries`."""

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
