"""The notebook of findings: the only writer of the database. Rows are only added, each with its ledger line."""

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import secrets
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import platformdirs
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

import neuronaut
from neuronaut.memory import ledger, migrations, schema
from neuronaut.memory.judge import RULE_VERSION, Decision, ReadsCase, WritesCase
from neuronaut.tools.errors import UserError
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.targets.base import Fingerprint
from neuronaut.tools.units import Unit

BUSY_SECONDS = 10
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PACKAGES = ("neuronaut", "torch", "transformer-lens", "transformers", "numpy", "scipy")


def new_id() -> str:
    """A ULID: 48 bits of time, 80 bits of chance, sortable as text."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def default_path() -> Path:
    """$NEURONAUT_NOTEBOOK, or notebook.db in the user's data folder."""
    named = os.environ.get("NEURONAUT_NOTEBOOK")
    return Path(named) if named else Path(platformdirs.user_data_dir("neuronaut")) / "notebook.db"


@dataclass(frozen=True)
class Started:
    """An experiment that was begun; `finished` is the stored result when the same one was already done."""

    id: str
    finished: dict[str, Any] | None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExperimentSpec:
    """What decides an experiment's result: equal specs on one target are the same experiment."""

    tool: str
    tool_sha256: str
    args: dict[str, Any]
    seed: int = 0


class Notebook:
    """An open notebook. Use as a context manager, or close it."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        with _sqlite_errors(path):
            self._engine = self._connect()
            self._db = self._engine.connect()
            migrations.migrate(self._db, path, read_only=read_only)

    def _connect(self) -> sa.Engine:
        exists = self.path.exists()
        if self.read_only and not exists:
            raise UserError(f"there is no notebook {str(self.path)!r}: give --notebook FILE, or ask a question first")
        if exists and self.path.is_dir():
            raise UserError(f"{str(self.path)!r} is a folder: give a file for the notebook")
        if not exists:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"the folder of the notebook {str(self.path)!r} cannot be made: {error.strerror}"
                ) from None
        mode = "ro" if self.read_only else "rwc"
        uri = f"file:{quote(str(self.path.absolute()))}?mode={mode}"
        engine = sa.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, check_same_thread=False),
            poolclass=sa.pool.StaticPool,
        )

        @sa.event.listens_for(engine, "connect")
        def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
            connection.isolation_level = None
            for pragma in (
                "foreign_keys=ON",
                f"busy_timeout={BUSY_SECONDS * 1000}",
                "mmap_size=0",
                "trusted_schema=OFF",
            ):
                connection.execute(f"PRAGMA {pragma}")
            if not self.read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN" if self.read_only else "BEGIN IMMEDIATE")

        return engine

    def close(self) -> None:
        """Close the database."""
        self._db.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self.read_only:
            raise UserError(f"the notebook {str(self.path)!r} is open for reading only")
        with _sqlite_errors(self.path), self._db.begin():
            yield

    def _insert(self, table: sa.Table, row: Mapping[str, Any]) -> str:
        """Add a row and its ledger line, inside the caller's transaction. Returns the row's key."""
        full = {column.name: row.get(column.name) for column in table.columns}
        self._db.execute(table.insert().values(full))
        key = ledger.row_key(full, tuple(column.name for column in table.primary_key))
        last = self._db.execute(
            sa.select(schema.ledger.c.seq, schema.ledger.c.sha256).order_by(schema.ledger.c.seq.desc()).limit(1)
        ).first()
        seq, prev = (last[0] + 1, last[1]) if last else (1, ledger.GENESIS)
        digest = ledger.row_hash(full)
        line = {
            "seq": seq, "table_name": table.name, "row_id": key, "row_sha256": digest, "prev_sha256": prev,
            "sha256": ledger.line_hash(seq, table.name, key, digest, prev),
        }  # fmt: skip
        self._db.execute(schema.ledger.insert().values(line))
        return key

    def rows(self, statement: sa.Select[Any]) -> list[dict[str, Any]]:
        """The rows of a select, as dicts."""
        with _sqlite_errors(self.path), self._db.begin():
            return [dict(row) for row in self._db.execute(statement).mappings()]

    def _known(self, table: sa.Table, row: Mapping[str, Any]) -> str:
        """The id of the row with these values, added if it is new; inside the caller's transaction."""
        where = [table.c[name] == value for name, value in row.items()]
        found = self._db.execute(sa.select(table.c.id).where(*where)).scalar()
        return str(found) if found else self._insert(table, {"id": new_id(), **row})

    # Runs

    def start_run(
        self,
        config: Mapping[str, Any],
        fingerprint: Fingerprint,
        corpus: tuple[str, str, int],
        *,
        parent: str | None = None,
    ) -> str:
        """A new run for the question of `config` (question, seed, …) on a target and a corpus (name, sha256, characters)."""
        with self._writing():
            target = self._known(schema.target_model, asdict(fingerprint))
            name, sha256, n_characters = corpus
            known = self._known(schema.corpus, {"name": name, "sha256": sha256, "n_characters": n_characters})
            return self._insert(
                schema.run,
                {
                    "id": new_id(), "question": config["question"], "target": target, "corpus": known, "parent_run": parent,
                    "code_version": neuronaut.__version__, "code_commit": _commit(),
                    "packages": ledger.canonical({name: _version(name) for name in PACKAGES}),
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
        target = self._db.execute(sa.select(schema.run.c.target).where(schema.run.c.id == run)).scalar_one()
        return self._known(
            schema.unit,
            {
                "target": target,
                "kind": unit.kind,
                "layer": unit.layer,
                "index": unit.index,
                "sign": unit.sign,
                "address": unit.address,
            },
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

    def begin_experiment(
        self,
        run: str,
        spec: ExperimentSpec,
        *,
        prediction: str | None = None,
        repeat_of: str | None = None,
        fresh: bool = False,
    ) -> Started:
        """An experiment to be done, or the stored result of the same one done before (unless `fresh`)."""
        with self._writing():
            row = self._db.execute(sa.select(schema.run).where(schema.run.c.id == run)).mappings().one()
            body = {
                "tool": spec.tool,
                "tool_sha256": spec.tool_sha256,
                "args": ledger.canonical(spec.args),
                "seed": spec.seed,
            }
            key = ledger.sha256(ledger.canonical({**body, "target": row["target"], "corpus": row["corpus"]}))
            if not fresh and (done := self._finished(key)):
                return done
            more = {
                "run": run,
                "prediction": prediction,
                "corpus": row["corpus"],
                "key": key,
                "repeat_of": repeat_of,
                "started": now(),
            }
            return Started(self._insert(schema.experiment, {"id": new_id(), **body, **more}), None)

    def _finished(self, key: str) -> Started | None:
        e, end, a = schema.experiment, schema.experiment_end, schema.artifact
        joined = e.join(end, end.c.experiment == e.c.id).join(a, a.c.id == end.c.result)
        statement = sa.select(e.c.id, a.c.content).select_from(joined).where(e.c.key == key, end.c.outcome == "ok")
        row = self._db.execute(statement.order_by(e.c.id).limit(1)).first()
        if row is None:
            return None
        ids = self._db.execute(sa.select(schema.evidence.c.id).where(schema.evidence.c.experiment == row[0])).scalars()
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

    def verdict(
        self, prediction: str, case: ReadsCase | WritesCase, decision: Decision, evidence: Sequence[str]
    ) -> str:
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

    # Blocks of confirm text

    def open_block(self, run: str, unit: Unit, side: str, *, limit: int = 3) -> int | None:
        """The next fresh confirm block for a unit and side, recorded as opened; None when all have been used."""
        with self._writing():
            row = self._db.execute(sa.select(schema.run).where(schema.run.c.id == run)).mappings().one()
            key = {"unit": self._unit(run, unit), "side": side, "corpus": row["corpus"]}
            where = [schema.block_opened.c[name] == value for name, value in key.items()]
            used = self._db.execute(
                sa.select(sa.func.count()).select_from(schema.block_opened).where(*where)
            ).scalar_one()
            if used >= limit:
                return None
            self._insert(schema.block_opened, {"id": new_id(), "run": run, **key, "block": used})
            return int(used)

    # Language-model calls

    def begin_call(self, run: str, row: Mapping[str, Any]) -> str:
        """The intent of a call (purpose, provider, model, request, request_sha256), committed before it is sent."""
        with self._writing():
            return self._insert(schema.llm_call, {"id": new_id(), "run": run, **dict(row)})

    def end_call(self, call: str, row: Mapping[str, Any]) -> None:
        """The reply or the error of a call."""
        with self._writing():
            self._insert(schema.llm_call_end, {"id": new_id(), "call": call, **dict(row)})

    def head(self) -> str:
        """The end of the ledger, seq:sha256: kept elsewhere, it shows a cut or rewritten notebook."""
        rows = self.rows(
            sa.select(schema.ledger.c.seq, schema.ledger.c.sha256).order_by(schema.ledger.c.seq.desc()).limit(1)
        )
        return f"{rows[0]['seq']}:{rows[0]['sha256']}" if rows else f"0:{ledger.GENESIS}"


@functools.cache
def _commit() -> str | None:
    """The commit of a source checkout, with a mark when it was changed; None when installed."""
    folder = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as one sentence each; integrity errors are bugs and pass."""
    try:
        yield
    except IntegrityError:
        raise
    except (OperationalError, DatabaseError, sqlite3.DatabaseError) as error:
        raise UserError(f"the notebook {str(path)!r} {_reason(str(getattr(error, 'orig', error)))}") from None


def _reason(message: str) -> str:
    known = {
        "locked": "is locked by another process: wait for it to end, or give another --notebook",
        "readonly": "cannot be written to: change its permissions or give another --notebook",
        "unable to open": "cannot be opened: check that its folder exists and can be written to",
        "disk is full": "could not be written because the disk is full: nothing was lost, free some space and resume",
        "not a database": "is not a notebook, or is damaged: restore a copy or give another --notebook",
        "malformed": "is damaged: restore a copy or give another --notebook",
        "disk I/O": "could not be read or written (disk error): check the disk, then resume",
    }
    return next((sentence for word, sentence in known.items() if word in message), f"failed: {message}")
