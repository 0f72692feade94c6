"""Working through the question of a run to its end."""

import sqlite3
import time
from typing import Any

from neuronaut.agent.cost import Cost
from neuronaut.agent.graph import run_graph
from neuronaut.agent.plan import Step, steps_of
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.proposers.given import Given
from neuronaut.agent.questions import Question
from neuronaut.agent.session import BudgetSpent, Session
from neuronaut.agent.telling import tell
from neuronaut.agent.understanding import about_of, understood
from neuronaut.memory import queries
from neuronaut.memory.place import default_place
from neuronaut.memory.sqlite import sqlite_errors
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.units import Unit

STOPPED = 130


def _proposers(session: Session, question: Question) -> list[Proposer]:
    from neuronaut.agent.proposers.grammar import GrammarProposer

    found: list[Proposer] = [] if question.given is None else [Given(question.given)]
    found.append(GrammarProposer(seed=session.config.seed))
    if session.config.llm is not None:
        from neuronaut.agent.proposers.model import model_proposer

        found.append(model_proposer(session))
    return found


def work(session: Session) -> int:
    """Answer the question of a run; the exit code."""
    before = _spent_before(session)
    outcome, reason, code = "answered", "", 0
    try:
        session.say("run", f"{session.run}; if it stops: {_resume_command(session)}")
        _answer(session)
        if session.unasked:
            outcome, reason, code = "out_of_budget", session.unasked, 1
    except BudgetSpent as error:
        outcome, reason, code = "out_of_budget", str(error), 1
    except KeyboardInterrupt:
        outcome, reason, code = "cancelled", "interrupted; what was finished is kept", STOPPED
    except (ToolFailed, UserError) as error:
        session.notebook.end_run(session.run, "error", str(error), _cost(session, before))
        raise
    session.notebook.end_run(session.run, outcome, reason, _cost(session, before))
    if code:
        session.say(outcome, reason if session.unasked else f"{reason}; go on with: {_resume_command(session)}")
    return code


def _answer(session: Session) -> None:
    question = understood(session)
    session.proposers = _proposers(session, question)
    _recall(session, question)
    _through_graph(session, steps_of(question, fast=session.config.fast))
    if session.config.llm is not None:
        tell(session, about_of(session, question))


def _resume_command(session: Session) -> str:
    place = session.notebook.place
    return f"neuronaut resume {session.run}" + ("" if place == default_place() else f" --notebook {place}")


def _recall(session: Session, question: Question) -> None:
    """Say what earlier runs found out about the same; it is never used as evidence."""
    units = [Unit.of_task(task) for task in question.tasks]
    if question.unit is not None:
        units += [question.unit.with_sign(sign) for sign in question.signs]
    for unit in units:
        for found in session.earlier_findings(unit):
            stale = "" if found.same_inputs else " (stale: on other text, or by an earlier version of the tools)"
            session.say(
                "recall", f"{unit.address} {found.side} {found.status} in run {found.run}: {found.claim}{stale}"
            )


def _through_graph(session: Session, steps: dict[str, Step]) -> None:
    """Work through the steps. Damaged checkpoints are made anew: the notebook is the record."""
    checkpoints = session.notebook.place.checkpoints
    try:
        run_graph(session, steps, checkpoints)
    except sqlite3.DatabaseError as error:
        if not any(sign in str(error) for sign in ("not a database", "malformed", "no such", "no column")):
            with sqlite_errors(checkpoints):
                raise
        session.say("resume", "the checkpoints are damaged and made anew; what was finished is found in the notebook")
        for suffix in ("", "-wal", "-shm"):
            checkpoints.with_name(checkpoints.name + suffix).unlink(missing_ok=True)
        run_graph(session, steps, checkpoints)


def _spent_before(session: Session) -> tuple[float, float]:
    """Seconds and forward passes of the run's experiments so far: what a resumed run had cost."""
    ends = [row["end"] for row in queries.experiments(session.notebook, session.run) if row["end"]]
    return sum(end["seconds"] for end in ends), sum(end["forwards"] for end in ends)


def _cost(session: Session, before: tuple[float, float]) -> dict[str, Any]:
    """What the run cost, the parts before a resume included."""
    seconds, forwards = before[0] + time.monotonic() - session.began, before[1] + session.forwards
    priced = session.gateway is None or session.gateway.priced
    return Cost.of(session.notebook, session.run, seconds=seconds, forwards=forwards, priced=priced).fields
