"""Dreams in a run: the search, and what proposers are shown of earlier ones, marked synthetic."""

from typing import Any

from neuronaut.agent.proposers.base import Synthetic
from neuronaut.agent.questions import Question
from neuronaut.agent.session import Session
from neuronaut.memory import queries
from neuronaut.tools.units import Unit


def dream(session: Session, question: Question) -> None:
    """Prompts that drive a unit or a difference of logits. What is claimed of the unit afterwards is tested on natural text."""
    asked: dict[str, Any] = {"answer": question.answer, "wrong_answer": question.wrong_answer}
    if question.unit is not None:
        asked = {"unit": question.unit.address}
    found = session.experiment("dream", asked | {"seed": session.config.seed}, own=True).payload
    first = found["front"][0]
    session.say(
        "dream", f"synthetic: {first['text']!r} drives {found['aim']} to {first['activation']:.3g}; {found['said']}"
    )


def synthetic(session: Session, unit: Unit) -> tuple[Synthetic, ...]:
    """The prompts of the last dream of a unit on the same model and corpus, the strongest first; none where there was none,
    and none in the fast loop, which asks no more of the notebook than it needs."""
    if session.config.loop == "fast":
        return ()
    seen = queries.looks(session.notebook, session.run, ("dream",), (unit.address,))
    payload = seen.get(("dream", unit.address))
    rows = [] if payload is None else payload["front"]
    return tuple(Synthetic(row["text"], row["activation"]) for row in rows if not row.get("natural"))
