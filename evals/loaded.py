"""Target models of the benchmark, each loaded once in a process: the engine takes seconds to import and to load."""

from functools import cache

from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target


@cache
def loaded(name: str) -> TargetModel:
    """The target that a name or a folder means. Its count of forwards goes on from batch to batch: take differences."""
    return load_target(name)
