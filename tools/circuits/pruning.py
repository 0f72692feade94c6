"""Iterative pruning: nodes leave the circuit one after the other, as long as enough of the behaviour is left.

Source: Lan et al. 2024, arXiv:2311.04131, appendix "iterative node pruning".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, assert_never

import numpy as np

from neuronaut.tools.circuits.nodes import Array, Mask, NodeRuns, Trail

PruneOrder = Literal["effect", "backward", "forward", "random"]
MAX_ROUNDS = 4


class Step(NamedTuple):
    """A circuit on the way: its number of nodes, and the share of the gap that it keeps."""

    size: int
    share: float


@dataclass(frozen=True)
class Pruned:
    """What pruning left. steps: each circuit that was accepted on the way, the whole model first. complete: False where
    the budget ended it early."""

    mask: Mask
    share: float
    steps: tuple[Step, ...]
    complete: bool
    order: PruneOrder = field(default="effect")


def prune(
    runs: NodeRuns, *, order: PruneOrder, threshold: float, seed: int, budget: float, start: Mask | None = None
) -> Pruned:
    """Nodes are tried in an order, round after round, until a round takes none out.

    start: the circuit that is pruned, None for the whole model. threshold: share of the clean-corrupted gap that has to be
    left. order: the last or first layer first, at random, or what matters least alone first (the last layer first, where
    measuring that would spend half of the budget). budget: forwards that may be spent; when they are, what is left so far
    comes back.
    """
    limit, now = runs.target.forwards + budget, runs.trail(runs.whole if start is None else start)
    if order == "effect" and int(now.circuit.sum()) * len(runs.prompts) > budget / 2:
        order = "backward"
    steps, complete = [Step(int(now.circuit.sum()), runs.share(now.scores))], True
    for _ in range(MAX_ROUNDS):
        size = int(now.circuit.sum())
        for node in _ordered(runs, now, order, seed):
            if runs.target.forwards + len(runs.prompts) > limit:
                complete = False
                break
            tried = runs.trail(_without(now.circuit, node), now)
            if runs.share(tried.scores) >= threshold:
                now = tried
                steps.append(Step(int(now.circuit.sum()), runs.share(now.scores)))
        if not complete or int(now.circuit.sum()) == size:
            break
    return Pruned(now.circuit, runs.share(now.scores), tuple(steps), complete, order)


def prune_by_role(
    runs: NodeRuns, *, order: PruneOrder, threshold: float, seed: int, budget: float
) -> tuple[Pruned, Pruned]:
    """Whole heads and MLPs pruned first, then what is left of them split by role (runs: by_role) and pruned again, so that few
    of the many nodes by role are ever tried.

    The first is of whole heads and MLPs; the steps of the second count nodes by role from the whole model on.
    """
    limit, n_roles = runs.target.forwards + budget, len(runs.roles)
    components = replace(runs, by_role=False)
    first = prune(components, order=order, threshold=threshold, seed=seed, budget=budget)
    start = np.repeat(first.mask, n_roles)
    left = limit - runs.target.forwards
    found = prune(runs, order=order, threshold=threshold, seed=seed, budget=left, start=start)
    before = [Step(step.size * n_roles, step.share) for step in first.steps]
    steps = (*before, *found.steps[1:])
    return first, replace(found, steps=steps, complete=first.complete and found.complete, order=first.order)


def _ordered(runs: NodeRuns, now: Trail, order: PruneOrder, seed: int) -> Iterator[int]:
    """The nodes of a circuit, in the order in which they are tried."""
    nodes = np.flatnonzero(now.circuit)
    match order:
        case "forward":
            yield from nodes.tolist()
        case "backward":
            yield from nodes[::-1].tolist()
        case "random":
            yield from np.random.default_rng(seed).permutation(nodes).tolist()
        case "effect":
            yield from nodes[np.argsort(effects(runs, now), kind="stable")].tolist()
        case _ as never:
            assert_never(never)


def effects(runs: NodeRuns, now: Trail) -> Array:
    """(n_members,) nats that the score falls when one node of a circuit is taken out of it."""
    nodes = np.flatnonzero(now.circuit)
    fallen = [runs.trail(_without(now.circuit, int(node)), now).scores for node in nodes]
    return np.array([float((now.scores - scores).mean()) for scores in fallen])


def _without(circuit: Mask, node: int) -> Mask:
    left = circuit.copy()
    left[node] = False
    return left
