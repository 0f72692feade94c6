"""The proposers that a benchmark can put on trial, by name; `PROVIDER:MODEL` is the search with a language model beside it."""

from collections.abc import Callable
from typing import Any

from neuronaut.agent.config import Budget, RunConfig
from neuronaut.agent.llm.budget import UNIT
from neuronaut.agent.llm.opened import within_budget
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.evals.cheating import CHEATS
from neuronaut.evals.registry import check as check_name
from neuronaut.evals.suite import Terms
from neuronaut.tools.errors import UserError
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.units import Unit

TAKE_THEM = ("planted", "twins", "pocket-labels", "real")  # suites that test hypotheses of any proposer on each unit
Factory = Callable[[ToolContext, Unit, int], list[Proposer]]


def _grammar(context: ToolContext, unit: Unit, seed: int) -> list[Proposer]:
    return [GrammarProposer(seed=seed)]


def _alone(make: Callable[[ToolContext, Unit, int], Proposer]) -> Factory:
    return lambda context, unit, seed: [make(context, unit, seed)]


FACTORIES: dict[str, Factory] = {"grammar": _grammar} | {name: _alone(make) for name, make in CHEATS.items()}


def known() -> tuple[str, ...]:
    """The names."""
    return tuple(FACTORIES)


def check(name: str) -> str:
    """The name, if it is known. Refuses another one."""
    return name if is_model(name) else check_name("proposer", name, FACTORIES)


def is_model(name: str) -> bool:
    """Whether it names a language model, as `anthropic:MODEL` does."""
    return ":" in name


def terms(name: str, suites: tuple[str, ...], base_url: str | None, budget: Budget) -> Terms | None:
    """How the language model of that name is asked, None where it names none. Refuses, before anything is sent, what cannot
    be used, a suite that would not ask it, and an address or a budget without a language model."""
    if not is_model(check(name)):
        if base_url is not None or budget != Budget():
            raise UserError(
                "--base-url and --budget-… are for a language model: name one, as --proposer compatible:MODEL"
            )
        return None
    if others := [suite for suite in suites if suite not in TAKE_THEM]:
        raise UserError(
            f"{', '.join(others)} would not ask a language model: choose from {', '.join(TAKE_THEM)} for --proposer {name}"
        )
    within_budget(_config(Terms(name, base_url, budget)))
    return Terms(name, base_url, budget)


def _config(asked: Terms) -> RunConfig:
    return RunConfig(question="", llm=asked.name, base_url=asked.base_url, budget=asked.budget)


def record(asked: Terms | None) -> dict[str, Any]:
    """What a scoreboard and a later call of the same evaluation must know of it; {} without a language model."""
    if asked is None:
        return {}
    model, _ = within_budget(_config(asked))
    limits = (UNIT if asked.budget == Budget() else asked.budget).model_dump(exclude_none=True)
    told = ", ".join(f"{name} {value:,}" for name, value in limits.items())
    return {
        "llm": {"name": asked.name, "asked": f"{model.provider}:{model.model}", "source": model.source, "budget": told}
    }


def proposers(name: str, context: ToolContext, seed: int) -> Callable[[Unit], list[Proposer]]:
    """What `ask_each` takes: the proposers for each unit; the language model joins them there."""
    factory = FACTORIES["grammar" if is_model(name) else check(name)]
    return lambda unit: factory(context, unit, seed)
