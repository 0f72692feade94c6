"""The search: a population of prompts, one for each price of a nat, in which single tokens are swapped where gradients say so.

Source: Thompson, Straznickas and Sklar 2024, "Fluent dreaming for language models", arXiv:2402.01702 (evolutionary prompt
optimization); here what a swap does to the cost of its own token is exact, and a unit that is off is followed along what
would switch it on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.dreams.aims import Aim, Measured, Slopes

HINT = 0.01  # of the scale, for what would switch a unit on: it orders prompts in which the unit is off, and no others
PRICES = (0.003, 0.3)  # of the scale for a nat a token: the smallest above 0, and the largest
DRAWS = 256  # random prompts that are measured together
FIRST = 0.2  # of the forward passes, for the prompts with which searches begin
APART = 0.6  # of the search, in which beginnings are gone on from one by one
IDLE = 20  # rounds without a new prompt after which a search ends

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


@dataclass(frozen=True)
class Plan:
    """population: prices of a nat; children: swaps of each member a step; keep: candidates a place; beginnings: searches apart,
    before the last one goes on from the best of all; forwards: after so many the search ends, or after its steps."""

    steps: int
    population: int
    children: int
    keep: int
    beginnings: int
    forwards: float

    def stage(self, step: int, forwards: float) -> int:
        """Which beginning is searched from; the number of beginnings where all are done and the best of all go on."""
        done = max(step / self.steps, forwards / self.forwards)
        return min(int(done / APART * self.beginnings), self.beginnings)

    def prices(self, scale: float) -> Floats:
        """What a nat a token costs each member, in units of the activation; the first pays nothing."""
        return scale * np.concatenate([[0.0], np.geomspace(*PRICES, self.population - 1)])


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


def random_search(aim: Aim, writing: Writing, forwards: float, rng: np.random.Generator) -> Found:
    """Prompts drawn as a dream's first ones are, for as many forward passes."""
    found, idle = Found(aim, writing), 0
    while found.forwards < forwards and idle < IDLE:
        n = max(1, min(DRAWS, int(forwards - found.forwards)))
        idle = 0 if len(found.add(writing.draw(n, rng)).ids) else idle + 1
    return found


def dreamt(
    aim: Aim, writing: Writing, plan: Plan, scale: float, rng: np.random.Generator, *, guided: bool = True
) -> Found:
    """What a search finds. scale: activation that counts as large. guided: by gradients; else any token may be swapped in."""
    found, prices = Found(aim, writing), plan.prices(scale)
    n_first = max(plan.population, int(FIRST * plan.forwards / plan.beginnings))
    members: Prompts | None = None
    idle, spread, at = 0, (0.0, 1.0), -1
    for step in range(plan.steps):
        if found.forwards >= plan.forwards or idle >= IDLE:
            break
        stage = plan.stage(step, found.forwards)
        if members is None or (at < stage < plan.beginnings):
            at, first = stage, found.add(writing.draw(n_first, rng))
            if len(first.ids):
                spread = (float(first.hints.mean()), float(first.hints.std()) or 1.0)
                members = best(first, prices, scale, spread)
            idle += not len(first.ids)
            continue
        if at < stage:
            at, members = stage, best(found.prompts, prices, scale, spread)
        children = found.add(swapped(found, members, plan, prices, rng, guided=guided))
        idle = 0 if len(children.ids) else idle + 1
        members = best(joined([children, members]), prices, scale, spread)
    return found


def best(prompts: Prompts, prices: Floats, scale: float, spread: tuple[float, float]) -> Prompts:
    """For each price the prompt of the largest value less what its cost takes away; of equal ones the first."""
    hints = np.clip((prompts.hints - spread[0]) / spread[1], -3, 3)
    worth = prompts.values + HINT * scale * hints - prices[:, None] * prompts.costs
    return selected(prompts, worth.argmax(axis=1))


def swapped(
    found: Found, members: Prompts, plan: Plan, prices: Floats, rng: np.random.Generator, *, guided: bool
) -> Tensor:
    """(population * children, pos): each a member with one token swapped for a candidate of a place drawn at random."""
    writing, n_pos = found.writing, members.ids.shape[1]
    slopes = found.slopes(members) if guided else None
    children = members.ids.repeat_interleave(plan.children, dim=0)
    places = rng.integers(writing.start, n_pos, len(children))
    for row, place in enumerate(places.tolist()):
        member = row // plan.children
        if slopes is None:
            token = int(rng.choice(writing.tokens))
        else:
            gain = gains(found.aim, members.ids[member], slopes, member, place, float(prices[member]))[writing.tokens]
            top = torch.topk(gain, min(plan.keep, len(gain))).indices
            token = int(writing.tokens[top[int(rng.integers(len(top)))]])
        children[row, place] = token
    return children


def gains(aim: Aim, ids: Tensor, slopes: Slopes, member: int, place: int, price: float) -> Tensor:
    """(d_vocab,) what each token would bring at a place, to first order; the cost of that token itself is exact."""
    embed = aim.target.embed
    slope = slopes.value[member, place] - price * slopes.cost[member, place].float()
    brought = embed @ slope
    brought = brought - brought[ids[place]]
    if place == 0:
        return brought
    log_probs = slopes.log_probs[member, place - 1]
    return brought + price / (len(ids) - 1) * (log_probs - log_probs[ids[place]])
