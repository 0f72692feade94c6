"""Every prompt that a search has measured, each once, and what it took."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.dreams.aims import Aim, Measured, Slopes

Floats = NDArray[np.float64]
T = TypeVar("T")


class Writing(Protocol):
    """Where prompts come from: rows begin with what the model puts before a text."""

    @property
    def start(self) -> int:
        """How many tokens of a row stay as they are."""
        ...

    @property
    def tokens(self) -> Tensor:
        """(n,) the tokens that may be written."""
        ...

    def draw(self, n: int, rng: np.random.Generator) -> Tensor:
        """At most n prompts to begin with, (≤ n, pos)."""
        ...

    def writable(self, ids: Tensor) -> Tensor:
        """(n,) bool: which prompts are texts that are cut into these very tokens."""
        ...


class Prompts(NamedTuple):
    """Prompts with what was measured of each: (n, pos), (n,), (n,), (n,)."""

    ids: Tensor
    values: Floats
    costs: Floats
    hints: Floats


@dataclass
class Found:
    """Every prompt that a search measured, each once; and the forward passes it took."""

    aim: Aim
    writing: Writing
    forwards: float = 0.0
    refused: int = 0  # swaps that give no text of these tokens
    _seen: set[bytes] = field(default_factory=set, repr=False)
    _parts: list[Prompts] = field(default_factory=list, repr=False)

    def add(self, ids: Tensor) -> Prompts:
        """What is new among some prompts, measured."""
        new = [row for row in range(len(ids)) if self._is_new(ids[row])]
        kept = ids[new]
        fits = self.writing.writable(kept) if len(kept) else torch.zeros(0, dtype=torch.bool)
        self.refused += int((~fits).sum())
        kept = kept[fits]
        measured = (
            self._counted(lambda: self.aim.measure(kept)) if len(kept) else Measured(*[torch.zeros(0).double()] * 3)
        )
        part = Prompts(kept, *(column.numpy() for column in measured))
        self._parts.append(part)
        return part

    def slopes(self, members: Prompts) -> Slopes:
        """Gradients for the members, of which several may be one prompt; their passes counted."""
        first, of = _alike(members.ids)
        one = selected(members, first)
        found = self._counted(lambda: self.aim.slopes(one.ids, torch.from_numpy(one.values)))
        return Slopes(*(part[torch.from_numpy(of)] for part in found))

    def _is_new(self, row: Tensor) -> bool:
        key = row.numpy().tobytes()
        known = key in self._seen
        self._seen.add(key)
        return not known

    def _counted(self, work: Callable[[], T]) -> T:
        before = self.aim.target.forwards
        result = work()
        self.forwards += self.aim.target.forwards - before
        return result

    @property
    def prompts(self) -> Prompts:
        """All of them."""
        return joined(self._parts)


def joined(parts: list[Prompts]) -> Prompts:
    """The prompts of all parts."""
    return Prompts(
        torch.cat([part.ids for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.costs for part in parts]),
        np.concatenate([part.hints for part in parts]),
    )


def selected(prompts: Prompts, rows: NDArray[np.intp]) -> Prompts:
    """Some of them."""
    return Prompts(prompts.ids[torch.from_numpy(rows)], *(column[rows] for column in prompts[1:]))


def _alike(ids: Tensor) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first row of each different one, and of each row the number of the different one that it is."""
    _, first, of = np.unique(ids.numpy(), axis=0, return_index=True, return_inverse=True)
    return first, of.reshape(-1)
