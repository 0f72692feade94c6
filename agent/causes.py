"""What is asked about the whole model: which heads are of a kind, what a prompt's answer rests on, why it is given."""

import json

from neuronaut.agent import heads
from neuronaut.agent.questions import HeadKind, Question
from neuronaut.agent.session import Session
from neuronaut.tools.errors import UserError
from neuronaut.tools.predicates.attends import AfterDuplicate, Current, Duplicate, First, Key, Previous
from neuronaut.tools.registry import find_tool
from neuronaut.tools.units import Unit

SHOWN_PARTS = 12
MOST_TESTED = 8  # heads of a kind, the largest scores first
MIN_ATTENTION = 0.3  # of a query on the keys of the kind, from which on a head is tested
KEYS: dict[HeadKind, Key] = {
    "previous": Previous(),
    "current": Current(),
    "first": First(),
    "duplicate": Duplicate(),
    "induction": AfterDuplicate(),
}
LIKELY: dict[HeadKind, float] = {"copying": 0.95}  # a rank, which is no attention


def look(session: Session, question: Question) -> None:
    """What one tool finds. Refuses a tool that opens text on which claims are tested."""
    if find_tool(question.tool).opens_test_text:
        raise UserError(f"{question.tool} opens text on which claims are tested: ask about the unit instead")
    session.experiment(question.tool, json.loads(question.arguments), own=True)


def heads_of_kind(session: Session, question: Question) -> None:
    """The heads of a kind: those whose scores are high are tested, each on its own fresh text; the highest one where none
    is high."""
    kind = question.kind
    assert kind is not None
    if kind == "successor":
        successors(session)
        return
    rows = session.experiment("head_scores", {"seed": session.config.seed}, own=True).payload["random"]
    if kind not in rows[0]:
        session.say("look", f"no head can be a {kind} head here: the model's texts hold no key of this kind")
        return
    ranked = sorted(rows, key=lambda row: -row[kind])
    likely = [row for row in ranked if row[kind] >= LIKELY.get(kind, MIN_ATTENTION)]
    named = ", ".join(f"{row['head']} {row[kind]:.2f}" for row in ranked[:MOST_TESTED])
    session.say("look", f"{len(likely)} of {len(rows)} heads may be {kind} heads; the largest scores: {named}")
    for row in likely[:MOST_TESTED] or ranked[:1]:
        unit = Unit.parse(row["head"])
        if kind in KEYS:
            heads.attends_as(session, unit, KEYS[kind])
        else:
            heads.attends(session, unit)


def every_head(session: Session) -> None:
    """All heads in one table."""
    found = session.experiment("describe_heads", {"seed": session.config.seed}, own=True).payload
    session.say(
        "look",
        f"{found['described']} of {len(found['heads'])} heads described; those that the notebook knows are told beside",
    )


def successors(session: Session) -> None:
    """The heads that raise the next of what they look at, beside permuted orders and random heads, each tested on its own fresh
    text; where none is right for half of the tokens, those that are better than chance; none where there are none."""
    found = session.experiment("successor_heads", {"seed": session.config.seed}, own=True).payload
    likely = found["successors"] or [row["head"] for row in found["heads"] if row["is"] == "next"]
    named = ", ".join(likely) or "none"
    session.say("look", f"of {len(found['heads'])} heads, better than chance at the next of what they look at: {named}")
    for head in likely[:MOST_TESTED]:
        heads.attends(session, Unit.parse(head))


def what_matters(session: Session, question: Question) -> None:
    """The heads, MLPs or neurons that the answer to a prompt rests on."""
    args = {"prompt": question.prompt, "answer": question.answer, "parts": question.parts, "k": SHOWN_PARTS}
    found = session.experiment("importance", args | {"seed": session.config.seed}, own=True).payload
    first = found["parts"][0]
    session.say("measure", f"{found['answer']!r} (p {found['probability']:.2f}) rests most on {first['part']}")


def why(session: Session, question: Question) -> None:
    """Why an answer follows a prompt: what it rests on, from which layer on it leads and which parts say it, and where the
    head that matters most looks."""
    shared = {"prompt": question.prompt, "answer": question.answer, "seed": session.config.seed}
    found = session.experiment("importance", shared | {"parts": "components", "k": SHOWN_PARTS}, own=True).payload
    session.say("measure", f"{found['answer']!r} has probability {found['probability']:.2f}")
    shared["answer"] = found["answer"]
    session.experiment("importance", shared | {"parts": "neurons", "k": SHOWN_PARTS}, own=True)
    if found["answer"] in session.context.target.vocabulary.pieces:
        session.experiment("logit_lens", {"text": question.prompt, "answer": found["answer"]}, own=True)
    first = next((part["part"] for part in found["parts"] if part["part"].startswith("L")), None)
    if first is not None:
        session.experiment("attention_on", {"unit": first, "texts": [question.prompt]}, own=True)
