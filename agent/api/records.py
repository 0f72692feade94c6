"""What the notebook knows of a unit, of an id, and whether it is whole."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from neuronaut.agent.answer import ORDER
from neuronaut.agent.api.answers import CLAIMS, SHOWN_CLAIMS, Answer, Claim
from neuronaut.agent.api.tables import Table, Type, cut
from neuronaut.agent.view import visible
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.search import search
from neuronaut.tools.units import Unit

if TYPE_CHECKING:
    import pandas
    import polars

FOUND: dict[str, Type] = {
    "status": "text", "unit": "text", "side": "text", "sentence": "text", "author": "text", "model": "text", "run": "text", "id": "text",
}  # fmt: skip
SHOWN_FOUND = ("status", "unit", "side", "sentence", "author", "model", "id")
RUNS: dict[str, Type] = {
    "run": "text", "question": "text", "outcome": "text", "model": "text", "corpus": "text", "started": "text", "repeats": "text",
}  # fmt: skip
SHOWN_RUNS = ("run", "question", "outcome", "model", "started")
LONGEST = 2000  # characters of a field as text
MOST = 10_000  # claims of one unit


def found_claims(notebook: Notebook, words: str) -> Table:
    """The claims that match, the newest first."""
    rows = search(notebook, words)
    return Table(FOUND, tuple(_found(row) for row in rows), f"claims for {words}", SHOWN_FOUND)


def _found(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": row["status"].upper(), "unit": row["address"], "side": row["side"], "sentence": row["claim"],
        "author": row["author"], "model": row["target"], "run": row["run"], "id": row["id"],
    }  # fmt: skip


def all_runs(notebook: Notebook) -> Table:
    """All runs, the newest first."""
    rows = [
        {
            "run": row["id"], "question": row["question"], "outcome": row["outcome"] or "unfinished", "model": row["target"],
            "corpus": row["corpus"], "started": row["started"], "repeats": row["parent_run"],
        }
        for row in queries.runs(notebook)
    ]  # fmt: skip
    return Table(RUNS, tuple(rows), "runs", SHOWN_RUNS)


@dataclass(frozen=True, repr=False)
class Known:
    """What the notebook knows of a unit of one model, of both its signs: claims with verdicts, what held first."""

    unit: str
    model: str
    claims: tuple[Claim, ...]
    outcomes: tuple[tuple[str, str, str, str], ...]  # unit, side, status, reason

    @classmethod
    def read(cls, notebook: Notebook, unit: Unit, model: str, weights: str) -> "Known":
        """From all runs on the same weights; repeats say nothing new and are left out."""
        addresses = {unit.address, unit.with_sign(-1 if unit.sign > 0 else 1).address}
        runs = {row["run"] for address in addresses for row in search(notebook, f"unit:{address}", limit=MOST)}
        answers = []
        for run in sorted(runs, reverse=True):
            row = queries.find_run(notebook, run)
            if row["target"]["weights_sha256"] == weights and row["parent_run"] is None:
                answers.append(Answer.read(notebook, run))
        claims = [claim for answer in answers for claim in answer.claims if claim.unit in addresses]
        outcomes = [
            (one["unit"], one["side"], one["status"], one["reason"])
            for answer in answers
            for one in answer.json["outcomes"]
            if one["unit"] in addresses
        ]
        claims.sort(key=lambda claim: ORDER.index(claim.status))
        return cls(unit.address, model, tuple(claims), tuple(dict.fromkeys(outcomes)))

    @cached_property
    def table(self) -> Table:
        """The claims, one row each."""
        return Table(CLAIMS, tuple(claim.row for claim in self.claims), self._title, SHOWN_CLAIMS)

    @property
    def _title(self) -> str:
        runs = len({claim.run for claim in self.claims})
        return f"{visible(self.unit)} of {visible(self.model)}: {len(self.claims)} claims of {runs} runs"

    def to_pandas(self) -> "pandas.DataFrame":
        """The claims as a pandas frame."""
        return self.table.to_pandas()

    def to_polars(self) -> "polars.DataFrame":
        """The claims as a polars frame."""
        return self.table.to_polars()

    def __str__(self) -> str:
        if not self.claims and not self.outcomes:
            return f'nothing is known of {self.unit} of {visible(self.model)}: lab.ask("what does {self.unit} do")'
        told = [f"{status}  {visible(unit)} {side}: {visible(reason)}" for unit, side, status, reason in self.outcomes]
        return "\n".join([self._title, *map(str, self.claims), *told])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from neuronaut.agent.api.html import table_html

        return table_html(self.table)


@dataclass(frozen=True, repr=False)
class Record:
    """Any row of the notebook: a hypothesis, an experiment, an evidence, a verdict."""

    table: str
    fields: dict[str, Any] = field(hash=False)

    @classmethod
    def of(cls, table: str, row: Mapping[str, Any]) -> "Record":
        """A row, its JSON read."""
        return cls(table, {name: _read(value) for name, value in row.items()})

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def _words(self) -> dict[str, str]:
        texts = {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
            for name, value in self.fields.items()
        }
        return {name: cut(text, LONGEST) for name, text in texts.items()}

    def __str__(self) -> str:
        return "\n".join([self.table, *(f"  {name:<16} {visible(text)}" for name, text in self._words.items())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from neuronaut.agent.api.html import record_html

        return record_html(self.table, self._words)


def _read(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


@dataclass(frozen=True)
class Verified:
    """Whether a notebook is whole, which is its truth value; the problems in sentences; the head of its ledger."""

    problems: tuple[str, ...]
    head: str

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        if self:
            return f"whole: every row, artifact and verdict checks out; head {self.head}"
        return "\n".join([*map(visible, self.problems), f"{len(self.problems)} problems"])

    __repr__ = __str__
