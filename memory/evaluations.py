"""Benchmark rows in a notebook: what was evaluated, with which code, and a row for each case that was done."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import ledger, schema
from neuronaut.memory.store import Store, new_id, now
from neuronaut.tools.errors import UserError


@dataclass(frozen=True)
class EvaluationKey:
    """What decides an evaluation's rows. code_sha256: hash of the code that computes them."""

    suite: str
    seed: int
    proposer: str
    loop: str
    code_sha256: str


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that was begun. settings: commit, packages and machine at its beginning."""

    id: str
    key: EvaluationKey
    settings: Mapping[str, Any]
    started: str


class Evaluations(Store):
    """A notebook with the records of benchmarks."""

    def begin(self, key: EvaluationKey, settings: Mapping[str, Any], *, fresh: bool = False) -> Evaluation:
        """The newest evaluation of the key, which goes on, or a new one where there is none or `fresh` asks for it."""
        if not fresh and (found := self.find(**asdict(key))):
            return found[0]
        with self._writing():
            row = {"id": new_id(), **asdict(key), "settings": ledger.canonical(dict(settings)), "started": now()}
            self._insert(schema.evaluation, row)
        return _evaluation(row)

    def add(self, evaluation: str, row: Mapping[str, Any]) -> None:
        """A case that is done: `case`, `family`, `outcome` and what else the suite measured. Refused twice by the database."""
        columns = {name: row[name] for name in ("case", "family", "outcome")}
        with self._writing():
            body = {"id": new_id(), "evaluation": evaluation, **columns, "row": ledger.canonical(dict(row))}
            self._insert(schema.evaluation_row, body)

    def find(self, **where: Any) -> list[Evaluation]:
        """Evaluations with these values (id, suite, seed, proposer, loop, code_sha256), the newest first."""
        table = schema.evaluation
        statement = sa.select(table).where(*(table.c[name] == value for name, value in where.items()))
        return [_evaluation(row) for row in self.rows(statement.order_by(table.c.id.desc()))]

    def done(self, evaluation: str) -> list[dict[str, Any]]:
        """The rows of an evaluation by case, so that their order does not depend on which worker was first."""
        table = schema.evaluation_row
        statement = sa.select(table.c.row).where(table.c.evaluation == evaluation).order_by(table.c.case)
        return [json.loads(row["row"]) for row in self.rows(statement)]


def open_evaluations(path: Path) -> Evaluations:
    """The notebook for reading. Refuses one that is not there."""
    if not path.exists():
        raise UserError(f"there are no results at {str(path)!r}: run `neuronaut eval` first, or name another --results")
    return Evaluations(path, read_only=True)


def _evaluation(row: Mapping[str, Any]) -> Evaluation:
    key = EvaluationKey(*(row[name] for name in EvaluationKey.__dataclass_fields__))
    return Evaluation(row["id"], key, json.loads(row["settings"]), row["started"])
