"""What changed between the model and another checkpoint of it: measured, and the same question asked of both."""

from collections.abc import Callable

from neuronaut.agent.config import RunConfig
from neuronaut.agent.questions import Question
from neuronaut.agent.session import Session
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.units import Unit

Explain = Callable[[Session, Unit], None]


def what_changed(session: Session, question: Question, *, explain: Explain) -> None:
    """What changed, beside noise; then what the unit that was asked about does in each of both, else what the unit does that
    changed most, where one is beyond the noise."""
    asked = "" if question.unit is None else question.unit.address
    args = {"other": question.others[0], "unit": asked, "seed": session.config.seed}
    found = session.experiment("diff_models", args, own=True).payload
    first, beyond = found["units"][0], found["beyond"]["any"]
    session.say("measure", f"{beyond} of {found['n_units']} heads and neurons changed more than noise of the same size")
    if asked or beyond:
        unit = Unit.parse(asked or first["unit"])
        explain(session, unit)
        _ask_of_other(session, question.others[0], unit)


def question_about(unit: Unit) -> str:
    """What is asked of both about a unit."""
    return f"what does {'head' if unit.kind == 'head' else 'neuron'} {unit.layer}.{_within(unit)} do"


def _within(unit: Unit) -> str:
    return f"{unit.index}" if unit.expert is None else f"e{unit.expert}.{unit.index}"


def _ask_of_other(session: Session, name: str, unit: Unit) -> None:
    """The same question of the other checkpoint, on the same text, as a run of its own."""
    from neuronaut.agent.runs import answer_in, left_of  # which themselves work through these steps

    session.check_budget()
    other = session.context.registered.other(name)
    config: RunConfig = session.config.model_copy(
        update={
            "question": question_about(unit),
            "model": other.place,
            "corpus": session.config.corpus or "pocket",
            "conversation": f"{session.run}/{name}",
            "budget": left_of(session),
            "dictionaries": {},
            "others": {},
            "labels": {},
        }
    )
    session.say("ask", f"the same of {name}")
    run = answer_in(session, config, ToolContext(other.target, session.context.corpus))
    session.say("ask", f"answered for {name} in run {run}")
