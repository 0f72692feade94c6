"""Visits to what enters and leaves a module: the instance gets a class of its own for as long as it is visited."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from torch import Tensor

from neuronaut.tools.targets.hooks import Visit
from neuronaut.tools.targets.mlx.arrays import to_mlx, to_torch

ArrayVisit = Callable[[mx.array], mx.array]
_CLASSES: dict[type, type] = {}  # of what is visited, by its own
VISITS = "_neuronaut_visits"  # an attribute that mlx does not take for a parameter


class Visits:
    """Those of one module, in the order in which they are made."""

    def __init__(self, plain: type) -> None:
        self.plain = plain
        self.before: list[ArrayVisit] = []
        self.after: list[ArrayVisit] = []


class Held(NamedTuple):
    """A visit that can be ended."""

    module: nn.Module
    visits: list[ArrayVisit]
    visit: ArrayVisit

    def remove(self) -> None:
        """Ends it; a module without visits has its own class again."""
        self.visits.remove(self.visit)
        of = self.module.__dict__[VISITS]
        if not of.before and not of.after:
            self.module.__class__ = of.plain
            del self.module.__dict__[VISITS]


def before(module: nn.Module, visit: ArrayVisit) -> Held:
    """Calls `visit` with what goes into the module, and sends in what it returns."""
    return _held(module, _of(module).before, visit)


def after(module: nn.Module, visit: ArrayVisit) -> Held:
    """Calls `visit` with what comes out of the module, and hands on what it returns."""
    return _held(module, _of(module).after, visit)


def in_torch(visit: Visit) -> ArrayVisit:
    """The visit of a tensor as one of an array. What it reads is computed at once; what it returns as it came is not copied."""

    def visited(value: mx.array) -> mx.array:
        seen = to_torch(value, copied=True)
        new: Tensor = visit(seen)
        return value if new is seen else to_mlx(new, value.dtype)

    return visited


def by_heads(visit: ArrayVisit, n_heads: int) -> ArrayVisit:
    """The visit of mixed values (batch, pos, n_heads, d_head) as one of what enters the output weights of attention."""

    def visited(value: mx.array) -> mx.array:
        z = value.reshape(*value.shape[:2], n_heads, -1)
        new = visit(z)
        return value if new is z else new.flatten(2)  # branches may have added rows

    return visited


def is_visited(module: nn.Module) -> bool:
    """Whether anything is visited there."""
    return VISITS in module.__dict__


def unvisited(module: nn.Module, value: mx.array) -> mx.array:
    """What the module makes of a value, seen by no visit."""
    visits = module.__dict__.get(VISITS)
    return (type(module) if visits is None else visits.plain).__call__(module, value)


def _of(module: nn.Module) -> Visits:
    found = module.__dict__.get(VISITS)
    if found is None:
        found = module.__dict__[VISITS] = Visits(type(module))
        module.__class__ = _visited(type(module))
    return found


def _held(module: nn.Module, visits: list[ArrayVisit], visit: ArrayVisit) -> Held:
    visits.append(visit)
    return Held(module, visits, visit)


def _visited(plain: type) -> type:
    if plain in _CLASSES:
        return _CLASSES[plain]

    def call(self: nn.Module, value: mx.array, *args: Any, **kwargs: Any) -> Any:
        visits: Visits = self.__dict__[VISITS]
        for visit in visits.before:
            value = visit(value)
        output = plain.__call__(self, value, *args, **kwargs)
        for visit in visits.after:
            output = visit(output)
        return output

    found = _CLASSES[plain] = type(plain.__name__, (plain,), {"__call__": call})
    return found
