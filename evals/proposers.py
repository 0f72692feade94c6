"""The proposers that a benchmark can put on trial, by name."""

from collections.abc import Callable

from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.evals.cheating import CHEATS
from neuronaut.evals.registry import check as check_name
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.units import Unit

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
    return check_name("proposer", name, FACTORIES)


def proposers(name: str, context: ToolContext, seed: int) -> Callable[[Unit], list[Proposer]]:
    """What `ask_each` takes: the proposers for each unit."""
    factory = FACTORIES[check(name)]
    return lambda unit: factory(context, unit, seed)
