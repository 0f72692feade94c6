"""Findings about earlier weights, asked again of the weights of now: each a prediction registered anew, on text fresh for it."""

from neuronaut.agent import circuits, heads, reads, writes
from neuronaut.agent.questions import Question
from neuronaut.agent.session import Session
from neuronaut.agent.steps import add_hypothesis
from neuronaut.memory import queries
from neuronaut.memory.schema import VERDICTS
from neuronaut.memory.stale import Stale, judged_now, stale_findings
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.attends import attends_from_json
from neuronaut.tools.predicates.circuit import Circuit
from neuronaut.tools.predicates.nodes import Promotes, Suppresses
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.units import Unit

AUTHOR = "an earlier run"
KEPT_BYTES = 1 << 30  # of activations, between two findings
NO_TEXT = "no text is left on which neither the finding nor these weights were tested: give other text"
OTHER_FEATURES = "a feature belongs to the weights that its dictionary was trained on"


def ask_again(session: Session, question: Question) -> None:
    """Each finding about earlier weights is called stale and tested again, unless these weights were asked the same before."""
    found = stale_findings(session.notebook, session.run, question.earlier)
    known = {} if session.config.again else judged_now(session.notebook, session.run, [one.key for one in found])
    session.say("stale", f"{len(found)} findings about earlier weights, {len(known)} of them judged for these already")
    for one in found:
        _mark(session, one)
        if one.key in known:
            continue
        session.check_budget()
        _again(session, one)
        session.context.forget_above(KEPT_BYTES)


def _mark(session: Session, one: Stale) -> None:
    """The finding is stale from now on; its verdict stays as it is."""
    state = queries.states(session.notebook, [one.hypothesis])[one.hypothesis]
    if state in VERDICTS:
        now = session.context.target.fingerprint()
        reason = f"weights changed from {one.weights[:12]} to {now.weights_sha256[:12]} ({now.name}): asked again in run {session.run}"
        session.notebook.move(one.hypothesis, "stale", reason=reason)


def _again(session: Session, one: Stale) -> None:
    unit = Unit.parse(one.address)
    gone = _gone(session, unit, one.side)
    if gone is not None:
        session.notebook.outcome(session.run, unit, one.side, "ABSTAINED", gone)
        session.say("gone", f"{one.address}: {gone}")
        return
    hypothesis = _hypothesis(session, unit, one)
    if any(row["verdicts"] for row in queries.hypotheses(session.notebook, session.run) if row["id"] == hypothesis):
        return
    if not _has_text(session, unit, one):
        session.notebook.outcome(session.run, unit, one.side, "UNRESOLVED", NO_TEXT)
        session.say("test", f"{one.address}: {NO_TEXT}")
        return
    try:
        _test(session, unit, one, hypothesis)
    except ToolRefused as error:
        session.notebook.outcome(session.run, unit, one.side, "UNRESOLVED", str(error))


def _gone(session: Session, unit: Unit, side: str) -> str | None:
    """Why there is nothing left that the claim could be about; None where there is."""
    if unit.kind == "task":
        return None
    if unit.kind == "feature":
        return OTHER_FEATURES
    try:
        check_unit(session.context.target.spec, unit)
    except ToolRefused as error:
        return str(error)
    if side not in ("reads", "writes"):
        return None
    reason = session.experiment("firing", {"unit": unit.address}).payload.get("abstained")
    return None if reason is None else str(reason)


def _hypothesis(session: Session, unit: Unit, one: Stale) -> str:
    """The same claim about the unit of these weights; its parent is the finding."""
    fields = {"side": one.side, "claim": one.claim, "predicate": one.predicate, "complexity": one.complexity}
    fields |= {"author": one.author, "parent": one.hypothesis} | ({"words": one.words} if one.words else {})
    return session.notebook.add_hypothesis(session.run, unit, fields)


def _has_text(session: Session, unit: Unit, one: Stale) -> bool:
    """Whether a block is open that waits for a test; else opens one that neither these weights nor the finding were tested on."""
    rows = queries.hypotheses(session.notebook, session.run)
    judged = {
        p["split"] for row in rows if row["verdicts"] and (row["address"], row["side"]) == (one.address, one.side) for p in row["predictions"]
    }  # fmt: skip
    opened = queries.opened_blocks(session.notebook, session.run, one.address, one.side)
    if any(f"confirm/{block}" not in judged for block in opened):
        return True
    same = one.side == "circuit" or queries.find_run(session.notebook, session.run)["corpus"]["id"] == one.corpus
    return session.notebook.open_block(session.run, unit, one.side, but=one.block if same else None) is not None


def _test(session: Session, unit: Unit, one: Stale, hypothesis: str) -> None:
    match one.side:
        case "reads":
            others = [*one.payload["rivals"], *one.payload["tried"]]
            ids = [hypothesis, *(add_hypothesis(session, unit, "reads", source, AUTHOR)[0] for source in others)]
            reads.test_claim(session, unit, hypothesis, ids, ())
        case "writes":
            story = predicate_from_json(one.predicate)
            assert isinstance(story, Promotes | Suppresses)
            writes.test_claim(session, unit, hypothesis, story)
        case "attends":
            rivals = [attends_from_json(source) for source in one.payload["rivals"]]
            heads.test_attends(session, unit, hypothesis, attends_from_json(one.predicate), rivals)
        case "role":
            heads.test_role(session, unit, hypothesis)
        case "circuit":
            circuits.test_circuit(session, unit, hypothesis, Circuit.model_validate_json(one.predicate))
        case other:
            raise ValueError(f"a claim of the side {other!r} has no test")
