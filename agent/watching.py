"""Findings about earlier weights, asked again of the weights of now: each a prediction registered anew, on text fresh for it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from neuronaut.agent import circuits, heads, reads, writes
from neuronaut.agent.controls import control, fired, tested
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
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

AUTHOR = "an earlier run"
OF_THEIR_OWN = {
    "readout": "a read-out belongs to the weights that it was trained on: ask about it again",
    "change": "it is about the change between two checkpoints, and about neither of them",
}  # kinds of predicates of findings that are not about the weights alone
KEPT_BYTES = 1 << 30  # of activations, between two findings
AT_ONCE = 64  # units that one pass over the text reads
NO_TEXT = "no text is left on which neither the finding nor these weights were tested: give other text"
NO_UNIT = "no such unit: "  # which no control could explain


def ask_again(session: Session, question: Question) -> None:
    """Each finding about earlier weights is called stale and tested again, unless these weights were asked the same before; where
    it fails, the earlier weights are tested on the same text, if they are at hand."""
    found = stale_findings(session.notebook, session.run, question.earlier)
    known = {} if session.config.again else judged_now(session.notebook, session.run, [one.key for one in found])
    session.say("stale", f"{len(found)} findings about earlier weights, {len(known)} of them judged for these already")
    dictionaries = {name: one.sha256 for name, one in session.config.dictionaries.items()}
    session.context = _reading_together(session.context)
    for together in _one_pass(found):
        if isinstance(session.context, BatchContext):
            session.context.take([unit for one in together if (unit := _to_read(session, one)) is not None])
        for one in together:
            if not_watched(one, dictionaries):
                continue
            _mark(session, one)
            if one.key not in known:
                session.check_budget()
                _again(session, one)
            _control(session, one)
            session.context.forget_above(KEPT_BYTES)


def not_watched(one: Stale, dictionaries: Mapping[str, str]) -> str | None:
    """Why a finding is not asked of other weights; None where it is. dictionaries: name and hash of those of the run."""
    if (kind := json.loads(one.predicate).get("kind")) in OF_THEIR_OWN:
        return OF_THEIR_OWN[kind]
    if one.dictionary is None:
        return None
    name = Unit.parse(one.address).name
    if name not in dictionaries:
        return f"a feature belongs to its dictionary, which is not given here: --dictionary {name}=FOLDER"
    if dictionaries[name] != one.dictionary:
        return (
            f"{name} is another dictionary here ({dictionaries[name][:12]}) than the finding's ({one.dictionary[:12]})"
        )
    return None


def _reading_together(context: ToolContext) -> ToolContext:
    """A context that reads several units in one pass; activations that an index keeps are read by none."""
    if context.stored is not None or isinstance(context, BatchContext):
        return context
    same = {name: getattr(context, name) for name in ("target", "corpus", "registered", "_opened", "_tokens")}
    return BatchContext(**same)


def _to_read(session: Session, one: Stale) -> Unit | None:
    """The unit whose activations a test needs; None of other claims and of units that are not there."""
    unit, target = Unit.parse(one.address).with_sign(1), session.context.target
    try:
        check_unit(target.spec, unit, target.dictionaries)
    except ToolRefused:
        return None
    return unit if one.side in ("reads", "writes") else None


def _one_pass(found: Sequence[Stale]) -> Iterator[list[Stale]]:
    """The findings in groups of a layer, or of a dictionary; at most AT_ONCE of them together."""

    def where(one: Stale) -> tuple[bool, str, int, str]:
        unit = Unit.parse(one.address)
        return one.side == "circuit", unit.kind, unit.layer, unit.name

    for _, same in groupby(sorted(found, key=where), key=where):
        rows = list(same)
        yield from (rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE))


def _control(session: Session, one: Stale) -> None:
    """Nothing for a finding that holds, or that no test could be made of."""
    verdict = judged_now(session.notebook, session.run, [one.key]).get(one.key)
    if verdict is not None:
        failed = None if verdict["outcome"] == "SUPPORTED" else tested(session.notebook, verdict)
    elif _silent(session, one):
        failed = fired(one, queries.find_run(session.notebook, session.run)["corpus"]["id"])
    else:
        failed = None
    if failed is not None:
        session.check_budget()
        control(session, one, failed)


def _silent(session: Session, one: Stale) -> bool:
    rows = queries.outcomes(session.notebook, session.run)
    return any(
        (row["address"], row["side"], row["status"]) == (one.address, one.side, "ABSTAINED")
        and not row["reason"].startswith(NO_UNIT)
        for row in rows
    )


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
    try:
        check_unit(session.context.target.spec, unit, session.context.target.dictionaries)
    except ToolRefused as error:
        return f"{NO_UNIT}{error}"
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
