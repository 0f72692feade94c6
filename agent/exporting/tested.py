"""One explanation of a unit put to the registered test, beside the rivals and null units of any claim."""

from neuronaut.agent import reads, writes
from neuronaut.agent.prospects import Prospect
from neuronaut.agent.session import Session
from neuronaut.agent.steps import add_hypothesis
from neuronaut.memory import queries
from neuronaut.memory.imports import add_explanation
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.predicates.nodes import Predicate, Promotes, Suppresses
from neuronaut.tools.predicates.tree import canonical_json, complexity
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.units import Unit

Rivals = dict[str, Prospect]


def judged(
    session: Session,
    unit: Unit,
    predicate: Predicate,
    author: str,
    words: str | None = None,
    *,
    rivals: Rivals | None = None,
) -> str:
    """Tests exactly this predicate on a fresh block of the unit's text and judges it; the id of its hypothesis.

    words: the author's own sentence, by which the explanation is known again; without, the predicate. rivals: what
    `rivals_of` gave, where several explanations of one unit are tested in one run; they are searched for once. What is done
    already is not done again. Where no test can be made, an outcome of the unit and side says why: too rare, no fresh text, …
    """
    about_output = isinstance(predicate, Promotes | Suppresses)
    side, words = ("writes" if about_output else "reads"), words or str(predicate)
    claim = claim_text(predicate) if about_output else claim_text(predicate, sign=unit.sign)
    row = {"side": side, "claim": claim, "predicate": canonical_json(predicate), "complexity": complexity(predicate),
           "author": author, "words": words}  # fmt: skip
    own = add_explanation(session.notebook, session.run, unit, row)
    if isinstance(predicate, Promotes | Suppresses):
        _test_writes(session, unit, own, predicate)
    else:
        _test_reads(session, unit, own, predicate, rivals)
    return own


def rivals_of(session: Session, unit: Unit) -> Rivals:
    """The hypotheses of the session's proposers about the unit, compared on design text; {} where it has no firing rule, which
    is an outcome."""
    rule = reads.look(session, unit)
    return {} if rule is None else reads.propose(session, unit, rule)


def _test_reads(session: Session, unit: Unit, own: str, predicate: Predicate, rivals: Rivals | None) -> None:
    rule = reads.look(session, unit)
    if rule is None:
        return
    found = reads.propose(session, unit, rule) if rivals is None else rivals
    source = canonical_json(predicate)
    try:
        done = session.experiment("compare_on_design", {"unit": unit.address, "predicates": [source]})
    except (ToolRefused, ToolFailed) as error:
        session.notebook.outcome(
            session.run, unit, "reads", "UNRESOLVED", f"it cannot be compared on design text: {error}"
        )
        return
    shorter = [one["predicate"] for one in done.payload["predicates"] if one["predicate"] != source]
    ids = [add_hypothesis(session, unit, "reads", one, reads.REVISION)[0] for one in shorter]
    rows = {row["id"]: row["predicate"] for row in queries.hypotheses(session.notebook, session.run)}
    seen = {source, *shorter}
    ids += [one for one in found if rows[one] not in seen]
    reads.test_claim(session, unit, own, ids, ())


def _test_writes(session: Session, unit: Unit, own: str, predicate: Promotes | Suppresses) -> None:
    if writes.fires(session, unit):
        writes.test_claim(session, unit, own, predicate)
