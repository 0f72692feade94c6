"""`neuronaut import`: each explanation of a file becomes a hypothesis that is tested, or is recorded as untestable."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuronaut.agent.config import RunConfig
from neuronaut.agent.cost import Cost
from neuronaut.agent.exporting.compiled import Compiled, compiled, put_by
from neuronaut.agent.exporting.given_rows import GivenRow, read_rows
from neuronaut.agent.exporting.tested import Rivals, judged, rivals_of
from neuronaut.agent.llm.base import OutOfBudget
from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.llm.log import NotebookLog
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.opening import context_of, open_inputs
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.runs import check_language_model
from neuronaut.agent.session import BudgetSpent, Say, Session
from neuronaut.agent.view import print_json, steps_on_stderr, visible
from neuronaut.agent.working import STOPPED
from neuronaut.memory import imports
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.store import check_writable
from neuronaut.memory.tables import format_of, write_table
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.predicates.nodes import Promotes, Suppresses
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.units import Unit

MAX_SOURCE = 60  # characters of a name
SHOWN = 100  # characters of an explanation in the printed table
IN_WORDS_ONLY = "explanations in words only"
TABLE = {
    "line": "int", "unit": "text", "explanation": "text", "taken_as": "text", "taken_by": "text", "verdict": "text", "f1": "float",
    "f1_low": "float", "f1_high": "float", "why": "text", "run": "text", "hypothesis": "text",
}  # fmt: skip
ORDER = ("SUPPORTED", "PARTIAL", "UNRESOLVED", "REFUTED", "ABSTAINED", "UNTESTABLE", "UNUSABLE", "NOT TESTED")
Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """An explanation of the file and what it is taken as. words: by which it is known again."""

    row: GivenRow
    taken: Compiled

    @property
    def words(self) -> str:
        """The explanation, with its predicate where it came with one."""
        if self.taken.by != "given":
            return self.row.text
        return f"{self.row.text} := {self.taken.predicate}" if self.row.text else str(self.taken.predicate)


@dataclass
class Import:
    """A file at work: one run for each unit that is tested, one for all that is in words only."""

    notebook: Notebook
    context: ToolContext
    config: RunConfig
    author: str
    say: Say
    began: float = field(default_factory=time.monotonic)
    came: dict[tuple[str, str], Row] = field(default_factory=dict)
    gateway: Gateway | None = None
    forwards_before: float = field(init=False)

    def __post_init__(self) -> None:
        self.forwards_before = self.context.forwards
        if not self.config.again:
            self.came = imports.earlier(self.notebook, self.author, self.inputs, self.context.corpus.sha256)

    @property
    def inputs(self) -> dict[str, str]:
        """What says that a model is the same."""
        now = self.context.target.fingerprint()
        return {"weights_sha256": now.weights_sha256, "processing": now.processing}

    def is_done(self, unit: Unit, asked: Asked) -> bool:
        """Whether nothing is left to do for it; what was untestable is tried again once a language model is named."""
        known = self.came.get((unit.address, asked.words))
        return known is not None and not (known["status"] == "UNTESTABLE" and self.can_be_put(asked))

    def can_be_put(self, asked: Asked) -> bool:
        """Whether there is a predicate to test, or somebody who may find one."""
        return asked.taken.predicate is not None or (self.config.llm is not None and not asked.row.refused)

    def unit(self, unit: Unit, waiting: list[Asked]) -> None:
        """Tests what can be tested of a unit's explanations, in its own run."""
        session = self._session(f"{unit.address} by {self.author}")
        session.proposers = [GrammarProposer(seed=self.config.seed)]
        rivals: Rivals | None = None
        try:
            for one in waiting:
                session.check_budget()
                taken = one.taken if one.taken.predicate is not None else self._put(session, unit, one)
                if taken.predicate is None:
                    self._in_words(session, unit, one, taken.reason)
                    continue
                if rivals is None and not isinstance(taken.predicate, Promotes | Suppresses):
                    rivals = rivals_of(session, unit)
                self.say("import", f"{unit.address}: {one.words[:SHOWN]} is taken as {taken.predicate} ({taken.by})")
                judged(session, unit, taken.predicate, self.author, one.words, rivals=rivals)
        except (BudgetSpent, OutOfBudget) as error:
            self._end(session, "out_of_budget", str(error))
            raise BudgetSpent(str(error)) from None
        except KeyboardInterrupt:
            self._end(session, "cancelled", "interrupted; what was finished is kept")
            raise
        except (ToolFailed, UserError) as error:
            self._end(session, "error", str(error))
            raise
        self._end(session, "answered", "")

    def in_words(self, waiting: list[tuple[Unit, Asked]]) -> None:
        """Records what cannot be tested, all of it in one run."""
        session = self._session(f"{IN_WORDS_ONLY} by {self.author}")
        for unit, one in waiting:
            self._in_words(session, unit, one, one.taken.reason)
        self._end(session, "answered", "")

    def _in_words(self, session: Session, unit: Unit, one: Asked, reason: str) -> None:
        row = {"side": "reads", "author": self.author, "words": one.words}
        imports.add_explanation(self.notebook, session.run, unit, row, refused=reason)

    def _put(self, session: Session, unit: Unit, one: Asked) -> Compiled:
        if self.config.llm is None or one.row.refused:
            return one.taken
        if session.gateway is None and self.gateway is not None:
            log = NotebookLog(session)
            session.gateway = self.gateway.inside(log)
            log.count(self.gateway.budget, self.gateway.model, counted=True)
        self.gateway = self.gateway or gateway_of(session)
        return put_by(gateway_of(session), one.row.text, unit.with_sign(1).address)

    def _session(self, about: str) -> Session:
        config = self.config.model_copy(update={"question": imports.QUESTION + about})
        fields, corpus = config.model_dump(mode="json"), self.context.corpus
        run = None
        if not config.again:
            run = imports.open_run(self.notebook, config.question, fields, self.inputs, corpus.sha256)
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run = run or self.notebook.start_run(fields, self.context.target.fingerprint(), size)
        session = Session(run, config, self.notebook, self.context, [], self.say, began=self.began)
        session.forwards_before = self.forwards_before  # a budget is that of the whole file
        return session

    def _end(self, session: Session, outcome: str, reason: str) -> None:
        priced = session.gateway is None or session.gateway.priced
        seconds = time.monotonic() - self.began
        cost = Cost.of(self.notebook, session.run, seconds=seconds, forwards=session.forwards, priced=priced)
        self.notebook.end_run(session.run, outcome, reason, cost.fields)


def import_file(
    config: RunConfig,
    file: Path,
    source: str,
    place: Place | None,
    *,
    features: str | None = None,
    out: Path | None = None,
    as_json: bool = False,
) -> int:
    """Test, record and print; the exit code: 0 all rows could be used, 1 out of budget, 3 some could not, 130 interrupted."""
    author = _author(source)
    if out is not None:
        format_of(out)
    rows = list(read_rows(file, features))
    check_language_model(config)
    where, say = place or default_place(), steps_on_stderr()
    check_writable(where)
    target, corpus = open_inputs(config, say)
    asked = [(_checked(row, target), compiled(row)) for row in rows]
    with Notebook(where) as notebook:
        work = Import(notebook, context_of(target, corpus, say), config, author, say)
        code, reason = _through(
            work, [(row.unit, Asked(row, taken)) for row, taken in asked if row.unit and not row.fault]
        )
        again = imports.earlier(notebook, author, work.inputs, corpus.sha256)
        table = [_told(row, Asked(row, taken), again) for row, taken in asked]
        _print(notebook, table, author, reason, out=out, as_json=as_json)
    return code or (3 if any(row["verdict"] == "UNUSABLE" for row in table) else 0)


def _author(source: str) -> str:
    name = " ".join(source.replace(",", " ").split())
    if not name or len(name) > MAX_SOURCE or not name.isprintable():
        raise UserError(f"--source {source!r} is no name: give 1 to {MAX_SOURCE} printable characters")
    return f"import:{name}"


def _checked(row: GivenRow, target: TargetModel) -> GivenRow:
    if row.unit is None or row.fault:
        return row
    try:
        check_unit(target.spec, row.unit, target.dictionaries)
    except UserError as error:
        return GivenRow(row.line, row.unit, row.text, fault=str(error))
    return row


def _through(work: Import, asked: list[tuple[Unit, Asked]]) -> tuple[int, str]:
    """Work on all that is not done; the exit code and why it stopped."""
    by_unit: dict[Unit, dict[str, Asked]] = {}
    in_words: list[tuple[Unit, Asked]] = []
    for unit, one in asked:
        if work.is_done(unit, one):
            continue
        if work.can_be_put(one):
            by_unit.setdefault(unit, {}).setdefault(one.words, one)
        else:
            in_words.append((unit, one))
    if in_words:
        work.in_words(in_words)
    try:
        for unit, waiting in by_unit.items():
            work.unit(unit, list(waiting.values()))
    except BudgetSpent as error:
        return 1, str(error)
    except KeyboardInterrupt:
        return STOPPED, "interrupted; what was finished is kept, and the same command goes on"
    return 0, ""


def _told(row: GivenRow, asked: Asked, came: Mapping[tuple[str, str], Row]) -> Row:
    said: Row = dict.fromkeys(TABLE) | {
        "line": row.line,
        "explanation": row.text,
        "unit": row.unit and row.unit.address,
    }
    if row.unit is None or row.fault:
        return said | {"verdict": "UNUSABLE", "why": row.fault, "taken_by": "nothing"}
    found = came.get((row.unit.address, asked.words))
    if found is None:
        taken = None if asked.taken.predicate is None else str(asked.taken.predicate)
        return said | {
            "verdict": "NOT TESTED",
            "why": "the import stopped before it",
            "taken_as": taken,
            "taken_by": asked.taken.by,
        }
    taken = found["predicate"] and str(predicate_from_json(found["predicate"]))
    by = asked.taken.by if asked.taken.predicate is not None else "language model" if taken else "nothing"
    told = {name: found[name] for name in ("f1", "f1_low", "f1_high", "run", "hypothesis")}
    return said | told | {"verdict": found["status"], "why": found["reason"], "taken_as": taken, "taken_by": by}


def _print(notebook: Notebook, table: list[Row], author: str, reason: str, *, out: Path | None, as_json: bool) -> None:
    counts = Counter(row["verdict"] for row in table)
    counted = {name: counts[name] for name in ORDER if counts[name]}
    if out is not None:
        write_table(out, TABLE, table)
    if as_json:
        print_json(
            {"author": author, "rows": table, "counts": counted, "stopped": reason or None, "notebook": str(notebook.place),
             "ledger_head": notebook.head()}
        )  # fmt: skip
        return
    for row in table:
        f1 = "" if row["f1"] is None else f" (F1 {row['f1']:.2f})"
        where = row["unit"] or f"row {row['line']}"
        print(f"{row['verdict']:<11} {where:<8} {visible(row['explanation'][:SHOWN])}{f1}")
        if row["taken_as"] and row["taken_as"] != row["explanation"]:
            print(f"{'':<21} taken as {visible(row['taken_as'][:300])}")
        if row["why"] and row["verdict"] != "SUPPORTED":
            print(f"{'':<21} {visible(row['why'][:300])}")
    told = ", ".join(f"{n} {name}" for name, n in counted.items()) or "no rows"
    print(
        f"\n{told} · by {visible(author)} · notebook {visible(str(notebook.place))} · ledger head {notebook.head()[:20]}"
    )
    if reason:
        print(f"stopped: {visible(reason)}")
