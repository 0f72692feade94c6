"""The search: children of the prompts that no other beats in both activation and fluency, step by step.

Source: Thompson, Straznickas and Sklar 2024, "Fluent dreaming for language models", arXiv:2402.01702 (evolutionary prompt
optimization with a cross-entropy penalty). Here parents come from the whole front: by a fixed price a nat, prompts that give up
fluency for more activation win at every price, and fluent ones die out. What a swap does to the cost of its own token is
exact, and a unit that is off is followed along what would switch it on.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from neuronaut.tools.dreams.aims import Aim
from neuronaut.tools.dreams.found import Floats, Found, Prompts, Writing, selected
from neuronaut.tools.dreams.front import front
from neuronaut.tools.dreams.moves import children

HINT = 0.01  # of the scale, for what would switch a unit on: it orders prompts in which the unit is off, and no others
PRICES = (0.01, 1.0)  # of the scale for a nat a token: by one drawn between them swaps of a parent are ordered
DRAWS = 256  # random prompts that are measured together
FIRST = 0.1  # of the forward passes, for the random prompts with which a search begins
IDLE = 20  # rounds without a new prompt after which a search ends


@dataclass(frozen=True)
class Plan:
    """population: parents a step; children: of each parent; keep: candidates a place; forwards: after so many the search ends, or
    after its steps."""

    steps: int
    population: int
    children: int
    keep: int
    forwards: float


class Beginning(NamedTuple):
    """What a search begins with beside prompts drawn at random. scale: activation that counts as large; ids: (n, pos) prompts,
    the strongest pieces of natural text."""

    scale: float
    ids: Tensor


def random_search(aim: Aim, writing: Writing, beginning: Beginning, forwards: float, rng: np.random.Generator) -> Found:
    """Prompts drawn as a dream's first ones are, for as many forward passes, beside the same beginning."""
    found, idle = Found(aim, writing), 0
    found.add(beginning.ids)
    while found.forwards < forwards and idle < IDLE:
        n = max(1, min(DRAWS, int(forwards - found.forwards)))
        idle = 0 if len(found.add(writing.draw(n, rng)).ids) else idle + 1
    return found


def dreamt(
    aim: Aim, writing: Writing, plan: Plan, beginning: Beginning, rng: np.random.Generator, *, guided: bool = True
) -> Found:
    """What a search finds. guided: by gradients; else any token may be written."""
    found, idle = Found(aim, writing), 0
    found.add(beginning.ids)
    found.add(writing.draw(max(plan.population, int(FIRST * plan.forwards)), rng))
    if not len(found.prompts.ids):
        return found
    hints = found.prompts.hints
    spread = (float(hints.mean()), float(hints.std()) or 1.0)
    for _ in range(plan.steps):
        if found.forwards >= plan.forwards or idle >= IDLE:
            break
        chosen = parents(found.prompts, plan.population, beginning.scale, spread, rng)
        prices = beginning.scale * np.exp(rng.uniform(np.log(PRICES[0]), np.log(PRICES[1]), plan.population))
        made = children(found, chosen, prices, plan.children, plan.keep, rng, guided=guided)
        idle = 0 if len(found.add(made).ids) else idle + 1
    return found


def parents(prompts: Prompts, n: int, scale: float, spread: tuple[float, float], rng: np.random.Generator) -> Prompts:
    """n prompts of the front drawn at random, the strongest always among them. spread: mean and deviation of the first hints."""
    hints = np.clip((prompts.hints - spread[0]) / spread[1], -3, 3)
    worth: Floats = prompts.values + HINT * scale * hints
    at = front(worth, prompts.costs)
    rows = at[rng.integers(len(at), size=n)]
    rows[-1] = at[-1]
    return selected(prompts, rows)
