"""One task of several: whether the target can do it, and circuits that keep more and less of it, each inside the one before."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from neuronaut.tools.circuits.measures import random_circuits
from neuronaut.tools.circuits.nodes import Ablation, Mask, NodeRuns, members_of
from neuronaut.tools.circuits.pruning import prune
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tasks.base import SOLVED, TaskPrompts, last_logits, solved
from neuronaut.tools.tasks.catalogue import task_named

N_NULL = 20
BUDGET = 50_000.0  # forwards of one search
MIN_GROUPS = 8  # of a task: half of them are searched, half held out


class Asked(NamedTuple):
    """A task that the target can do: runs on the prompts of the search, and on those that it does not see."""

    name: str
    search: NodeRuns
    held: NodeRuns


class Level(NamedTuple):
    """A circuit that keeps so much of a task. kept, random_best: shares of the gap on held-out prompts, of the circuit and of
    the best of N_NULL random ones. complete: False where the budget ended the search."""

    level: float
    mask: Mask
    kept: float
    random_best: float | None
    complete: bool


def asked_of(target: TargetModel, name: str, n: int, seed: int, how: Ablation) -> tuple[dict[str, Any], Asked | None]:
    """What the target makes of a task, beside what it makes of corrupted prompts; and the task, if it can be done.

    n: prompts of the search, and as many held out, of other groups (wording and first item).
    """
    try:
        prompts = task_named(name).prompts(target, 2 * n, seed=seed)
    except ToolRefused as refusal:
        return {"task": name, "can": False, "why": str(refusal)}, None
    known = solved(target, prompts)
    row: dict[str, Any] = {
        "task": name,
        "can": False,
        "why": "",
        "accuracy": round(known.accuracy, 4),
        "accuracy_corrupted": round(prompts.accuracy(last_logits(target, prompts.corrupted)), 4),
        "log_odds": round(float(known.clean.mean()), 4),
        "log_odds_corrupted": round(float(known.corrupted.mean()), 4),
        "n": len(prompts),
        "groups": int(prompts.groups.max()) + 1,
    }
    if known.accuracy < SOLVED:
        return row | {"why": f"{target.spec.name} has {known.accuracy:.0%} right, at least {SOLVED:.0%} is asked"}, None
    if known.gap <= 0:
        return row | {"why": "its corruption changes nothing"}, None
    if row["groups"] < MIN_GROUPS:
        return row | {"why": f"it has {row['groups']} groups of prompts, at least {MIN_GROUPS} are asked"}, None
    search, held = halves(prompts.select(np.flatnonzero(known.kept)), seed)
    return row | {"can": True}, Asked(name, NodeRuns(target, search, how), NodeRuns(target, held, how))


def halves(prompts: TaskPrompts, seed: int) -> tuple[TaskPrompts, TaskPrompts]:
    """Prompts of half of the groups, and those of the other half."""
    order = np.random.default_rng(seed).permutation(int(prompts.groups.max()) + 1)
    first = np.isin(prompts.groups, order[: -(-len(order) // 2)])
    return prompts.select(np.flatnonzero(first)), prompts.select(np.flatnonzero(~first))


def circuits_of(asked: Asked, levels: Sequence[float], seed: int) -> list[Level]:
    """A circuit a level, the strictest first; each search goes on from the circuit before it, so that they are nested."""
    found: list[Level] = []
    spec, start = asked.search.target.spec, None
    for level in sorted(levels, reverse=True):
        left = prune(asked.search, order="effect", threshold=level, seed=seed, budget=BUDGET, start=start)
        others = random_circuits(spec, left.mask, N_NULL, seed)
        own, *null = asked.held.scores([left.mask, *others])
        best = max((asked.held.share(one) for one in null), default=None)
        found.append(Level(level, left.mask, asked.held.share(own), best, left.complete))
        start = left.mask
    return found


def level_row(asked: Asked, found: Level) -> dict[str, Any]:
    """A level as JSON."""
    return {
        "task": asked.name,
        "level": found.level,
        "members": list(members_of(asked.search.target.spec, found.mask)),
        "size": int(found.mask.sum()),
        "kept": round(found.kept, 5),
        "random_best": None if found.random_best is None else round(found.random_best, 5),
        "complete": found.complete,
    }
