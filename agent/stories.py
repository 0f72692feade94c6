"""How the model comes to an answer: the lenses, the parts that say it, and a test of what the first neuron among them writes."""

from neuronaut.agent import writes
from neuronaut.agent.questions import Question
from neuronaut.agent.session import Session
from neuronaut.agent.steps import add_hypothesis
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.nodes import Promotes
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.units import Unit

AUTHOR = "direct attribution"


def lens(session: Session) -> None:
    """The tuned lens of the model and its text, trained where it is not kept."""
    try:
        done = session.experiment("tune_lens", {"seed": session.config.seed}, own=True)
    except ToolRefused as error:
        session.say("lens", f"no tuned lens: {error}")
        return
    kl = {name: done.measurements[f"kl_{name}"] for name in ("tuned", "shuffled")}
    session.say(
        "lens",
        f"{kl['tuned'].value:.2f} nats a token from the output on unseen documents; plain {kl['tuned'].null_value:.2f}, "
        f"trained on other tokens' outputs {kl['shuffled'].value:.2f}",
    )


def story(session: Session, question: Question) -> None:
    """From which layer on an answer leads and which parts say it; that the neuron which says most of it raises the answer is
    registered, and tested on unseen text."""
    args = {"text": question.prompt, "answer": question.answer, "seed": session.config.seed}
    try:
        found = session.experiment("prediction_story", args | {"lens": "tuned"}, own=True).payload
    except ToolRefused as error:
        if "tune_lens" not in str(error):
            raise
        found = session.experiment("prediction_story", args | {"lens": "plain"}, own=True).payload
    session.say(
        "measure",
        f"{found['answer']!r} over {found['rival']!r}: {found['margin']:+.1f} logits; {found['decides']} decides",
    )
    raises = [row for row in found["neurons"] if row["beyond"] and row["adds"] > 0 and row["activation"] > 0]
    if raises and not session.config.fast:
        _test(session, Unit.parse(raises[0]["neuron"]), found["answer"])


def _test(session: Session, unit: Unit, answer: str) -> None:
    """The claim that a neuron raises the answer wherever it fires."""
    if not writes.fires(session, unit):
        return
    predicate = Promotes(tokens=(answer,))
    hypothesis, claim = add_hypothesis(session, unit, "writes", canonical_json(predicate), AUTHOR)
    session.say("propose", f"{unit.address} {claim}")
    writes.test_claim(session, unit, hypothesis, predicate)
