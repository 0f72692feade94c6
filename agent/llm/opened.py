"""The language model of a run: opened once, asked within one budget by all that ask it."""

from neuronaut.agent.config import RunConfig, parse_llm
from neuronaut.agent.llm.base import TIMEOUT, LanguageModel
from neuronaut.agent.llm.budget import Budget
from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.llm.log import NotebookLog
from neuronaut.agent.llm.prices import read_prices
from neuronaut.agent.llm.recorded import RecordedModel
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.agent.llm.scripted import ScriptedModel
from neuronaut.agent.session import Session


def within_budget(config: RunConfig) -> tuple[LanguageModel, Budget]:
    """The language model that a run names, and its budget, whole. Refuses what cannot be used before anything is sent."""
    limits = config.budget
    timeout = TIMEOUT if limits.seconds is None else min(TIMEOUT, limits.seconds)
    model = open_language_model(parse_llm(str(config.llm)), config.base_url, timeout)
    budget = Budget.of(read_prices(), limits)
    budget.check(model)
    return model, budget


def gateway_of(session: Session) -> Gateway:
    """The way to the language model that the run names, within what is left of its budget; the same one each time."""
    if session.gateway is None:
        model, budget = within_budget(session.config)
        log = NotebookLog(session)
        log.count(budget, model)
        if isinstance(model, ScriptedModel):
            model.given = log.n_replies()
        elif isinstance(model, RecordedModel):
            session.say("model", f"replies of {model.provider}:{model.model} come from {model.path}; nothing is sent")
        else:
            session.say(
                "model",
                f"{model.provider}:{model.model} at {model.source} is asked: the question and explore text go there",
            )
        session.gateway = Gateway(model, log, budget)
    return session.gateway
