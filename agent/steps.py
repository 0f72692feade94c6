"""What every side of a unit does with a claim: note it, open text for its test, run the test, judge it."""

from typing import Any

from neuronaut.agent.session import Done, Session
from neuronaut.memory import queries
from neuronaut.memory.judge import Case, Decision, decide
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.predicates.tree import complexity, predicate_from_json
from neuronaut.tools.predicates.words import claim_text, told_from
from neuronaut.tools.units import Unit


def add_hypothesis(
    session: Session, unit: Unit, side: str, source: str, author: str, words: str | None = None
) -> tuple[str, str]:
    """The id of a hypothesis in the notebook, and its sentence. source: its predicate as JSON; words: the author's own
    sentence, which is kept beside it and is no claim."""
    predicate = predicate_from_json(source)
    claim = claim_text(predicate) if side == "writes" else claim_text(predicate, sign=unit.sign)
    for row in queries.hypotheses(session.notebook, session.run):
        if row["claim"] == claim and row["address"] == unit.address and row["predicate"] != source:
            claim = told_from(claim, predicate, predicate_from_json(row["predicate"]))
    fields = {"side": side, "claim": claim, "predicate": source, "complexity": complexity(predicate), "author": author}
    fields |= {"words": words} if words else {}
    return session.notebook.add_hypothesis(session.run, unit, fields), claim


def fresh_block(session: Session, unit: Unit, side: str, rows: list[dict[str, Any]]) -> int | None:
    """The confirm block for the next test: one that this run opened and did not use (it was killed), else a fresh one."""
    mine = [row for row in rows if row["address"] == unit.address and row["side"] == side]
    judged = {p["split"] for row in mine if row["verdicts"] for p in row["predictions"]}
    opened = queries.opened_blocks(session.notebook, session.run, unit.address, side)
    waiting = [block for block in opened if f"confirm/{block}" not in judged]
    block = waiting[0] if waiting else session.notebook.open_block(session.run, unit, side)
    if block is None:
        session.notebook.outcome(session.run, unit, side, "UNRESOLVED", "no fresh text")
        session.say("test", f"{unit.address}: no fresh text is left for another test")
    return block


def run_test(
    session: Session, unit: Unit, side: str, args: dict[str, Any], *, prediction: str, claim: str
) -> Done | None:
    """The experiment `test_<side>` of a registered prediction; None with an UNRESOLVED outcome where it failed."""
    try:
        return session.experiment(f"test_{side}", args, prediction=prediction, subject=claim)
    except (ToolRefused, ToolFailed) as error:
        session.notebook.outcome(session.run, unit, side, "UNRESOLVED", f"the test failed: {error}")
        return None


def judge(session: Session, prediction: str, case: Case, evidence: tuple[str, ...], told: str) -> Decision:
    """The verdict on a registered prediction, in the notebook. told: the claim and its number, for the reader."""
    decision = decide(case)
    session.notebook.verdict(prediction, case, decision, evidence)
    session.say("verdict", f"{decision.status}: {told}; {decision.reason}")
    return decision
