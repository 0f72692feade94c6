"""The language model of a run tells what it found, in sentences that code checks."""

from pydantic import ValidationError

from neuronaut.agent.answer import answer_of
from neuronaut.agent.llm.base import OutOfBudget, Request, plain
from neuronaut.agent.llm.budget import UnitSpent
from neuronaut.agent.llm.gateway import Malformed, NoReply
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.session import Session
from neuronaut.agent.words import PURPOSE, Telling, fault_of, read_telling, results_of
from neuronaut.prompts import render


def tell(session: Session, about: str) -> None:
    """Ask the language model of a run to tell what it found, within the limits of what the question is about; the reply stays
    in the notebook, and `words_of` reads it.

    Where none comes, that is said, and the answer stands without.
    """
    answer = answer_of(session.notebook, session.run)
    results = results_of(answer)
    if not results:
        return
    gateway = gateway_of(session)
    lines = [f"{key}: {plain(one.line, 600)}" for key, one in results.items()]
    prompt = render("tell", question=answer["question"], target=answer["target"]["name"], results=lines)
    request = Request(PURPOSE, render("tell_system"), prompt, Telling, min(1_000, gateway.model.max_tokens))
    try:
        told = gateway.ask(request, _read, about=about)
    except OutOfBudget as error:
        session.unasked = "" if isinstance(error, UnitSpent) else str(error)
        session.say("model", f"the answer is not told in words: {error}")
    except NoReply as error:
        session.say("model", f"the answer is not told in words: {error}")
    else:
        faults = [fault for one in told.sentences if (fault := fault_of(one, results))]
        for fault in faults:
            session.say("left out", f"a sentence of the answer: {fault}")


def _read(reply: str) -> Telling:
    try:
        return read_telling(reply)
    except ValidationError:
        raise Malformed('it is not an object {"sentences": [{"text": "...", "evidence": ["..."]}]}.') from None
