"""Units for a concept: ranked on a part of labelled texts, tested on the rest, and what they read judged on unseen text."""

from typing import Any

from neuronaut.agent import reads, writes
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.proposers.given import PERSON, Given
from neuronaut.agent.questions import Question
from neuronaut.agent.session import Session
from neuronaut.agent.steps import add_hypothesis
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.nodes import Predicate, Promotes, Token
from neuronaut.tools.predicates.tree import canonical_json, predicate_from_json
from neuronaut.tools.units import Unit

FDR = 0.05
TESTED = {"units": 5, "heads": 2, "directions": 2}  # on held-out labelled texts
CLAIMED = 3  # units whose reads side is judged on unseen text of the corpus
MOST_PROMOTED = 20  # tokens of a claim about the output
RARE = "the best ones are heads or directions, which no reads claim is about"


def find(session: Session, question: Question) -> None:
    """Rank, test on held-out texts, steer, and register what the best units read and write."""
    asked = {"labels": question.labels, "concept": question.answer, "seed": session.config.seed}
    found = session.experiment("find_units", asked, own=True).payload
    session.say("look", _best(found))
    good = [row["unit"] for kind, most in TESTED.items() for row in found[kind][:most] if row["q"] <= FDR]
    if not good:
        return
    said = found["said_as"]["predicate"] if found["said_as"] else ""
    told = session.experiment("test_units", asked | {"units": good, "said_as": said}, own=True).payload
    if any(" " in name for name in good):
        session.experiment("steer_concept", asked, own=True)
    holding = [row["unit"] for row in told["units"] if row["tells"]]
    units = [Unit.parse(name) for name in holding if " " not in name]
    claimed = [unit for unit in units if unit.kind in ("neuron", "feature")]
    claimed = sorted(claimed, key=lambda unit: unit.sign < 0)[:CLAIMED]  # many neurons have no side below 0
    if not claimed:
        session.say("look", RARE if holding else "none of them tells the concept on held-out texts")
    predicate = predicate_from_json(said) if said else None
    for unit in claimed:
        _reads(session, unit, predicate)
        if unit == claimed[0] and isinstance(predicate, Token):
            _writes(session, unit, predicate)


def _best(found: dict[str, Any]) -> str:
    first, chance = found["units"][0], found["chance"]["best"]
    return (
        f"{found['found']} of {found['ranked']} units and directions tell {found['concept']!r}; the best neuron {first['unit']} with "
        f"AUROC {first['auroc']:.2f} (by chance up to {chance:.2f})"
    )


def _reads(session: Session, unit: Unit, predicate: Predicate | None) -> None:
    """What a unit reads, the concept's own tokens first among what is tested."""
    before: list[Proposer] = session.proposers
    session.proposers = [*([] if predicate is None else [Given(predicate)]), *before]
    try:
        reads.answer(session, unit)
    finally:
        session.proposers = before


def _writes(session: Session, unit: Unit, predicate: Token) -> None:
    """Whether a unit also writes the concept's tokens, where these are few."""
    if unit.sign < 0 or len(predicate.any_of) > MOST_PROMOTED:
        return
    story = Promotes(tokens=predicate.any_of)
    hypothesis, _ = add_hypothesis(session, unit, "writes", canonical_json(story), PERSON)
    try:
        writes.test_claim(session, unit, hypothesis, story)
    except ToolRefused as error:
        session.notebook.outcome(session.run, unit, "writes", "ABSTAINED", str(error))
