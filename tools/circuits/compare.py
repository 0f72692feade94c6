"""The tool `compare_circuits`: what two circuits share, and what is left of each task without the circuit of the other."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.circuits.find import jaccard
from neuronaut.tools.circuits.measures import random_circuits, share_of
from neuronaut.tools.circuits.nodes import Ablation, Array, Mask, NodeRuns, component_of, mask_of, members_of
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.targets.base import ModelSpec, TargetModel
from neuronaut.tools.tasks.base import require_solved
from neuronaut.tools.tasks.catalogue import task_named


class CompareCircuitsArgs(ToolArgs):
    """Two tasks with the members of their circuits, and how many prompts and random circuits are run."""

    example: ClassVar = {
        "tasks": ["months", "days"],
        "members": [["L0H0", "L0H3", "mlp1", "mlp3", "mlp4", "mlp7"], ["L0H0", "L0H3", "mlp1", "mlp3"]],
        "n": 16,
        "n_random": 20,
    }
    tasks: tuple[str, str]
    members: tuple[tuple[str, ...], tuple[str, ...]]
    how: Ablation = "resample"
    n: int = Field(default=32, ge=8, le=512)
    n_random: int = Field(default=100, ge=20, le=10_000)
    seed: int = 0


@tool("compare_circuits")
def compare_circuits(context: ToolContext, args: CompareCircuitsArgs) -> ToolResult:
    """Shared members of the circuits of two tasks (Jaccard), and the share of each task's gap that is left without the other's
    circuit.

    jaccard: 1 for equal circuits; null: random circuits of as many members of each type. left: 1 is unharmed, 0 all is
    lost; null: what is left without random circuits like the other's, as mean and percentile (0: the other's circuit
    harms more than all of them). Prompts are those of the search half. A member at one role counts as its whole head or MLP,
    since the prompts of two tasks have other roles.
    Refuses: a task that the target cannot do; members that are no nodes.
    """
    if not all(args.members):
        raise ToolRefused("a circuit has no members: there is nothing to compare")
    target = context.target
    one, other = (mask_of(target.spec, list(map(component_of, members))) for members in args.members)
    null = random_overlap(target.spec, one, other, args.n_random, args.seed)
    overlap = jaccard(one, other)
    share = Measurement(
        "jaccard",
        overlap,
        "share of the members",
        int((one | other).sum()),
        null_value=float(null.mean()),
        null_percentile=percentile_of(overlap, null),
        n_of="members",
    )
    crossed = [_crossed(target, args.tasks[0], other, args), _crossed(target, args.tasks[1], one, args)]
    payload = {
        "tasks": list(args.tasks),
        "shared": list(members_of(target.spec, one & other)),
        "only": [list(members_of(target.spec, one & ~other)), list(members_of(target.spec, other & ~one))],
        "jaccard": overlap,
        "jaccard_random": float(null.mean()),
        "crossed": [row for row, _ in crossed],
    }
    return ToolResult((share, *(measured for _, measured in crossed)), payload)


def random_overlap(spec: ModelSpec, one: Mask, other: Mask, n: int, seed: int) -> Array:
    """(n,) Jaccard of pairs of random circuits of as many members of each type."""
    drawn = random_circuits(spec, one, n, seed), random_circuits(spec, other, n, seed + 1)
    return np.array([jaccard(left, right) for left, right in zip(*drawn, strict=False)] or [0.0])


def _crossed(
    target: TargetModel, name: str, removed: Mask, args: CompareCircuitsArgs
) -> tuple[dict[str, Any], Measurement]:
    """One task without the circuit of the other, and without random ones like it."""
    prompts = task_named(name).prompts(target, args.n, seed=args.seed)
    require_solved(target, prompts)
    runs = NodeRuns(target, prompts, args.how)
    left = share_of(runs, runs.scores([~removed])[0], args.seed)
    others = random_circuits(target.spec, removed, args.n_random, args.seed)
    null = np.array([runs.share(scores) for scores in runs.scores([~mask for mask in others])])
    mean, percentile = (float(null.mean()), percentile_of(left.share, null)) if len(null) else (None, None)
    row = {
        "task": name,
        "left": left.share,
        "low": left.low,
        "high": left.high,
        "random": mean,
        "percentile": percentile,
    }
    measured = Measurement(
        "left",
        left.share,
        "share of the gap",
        len(set(prompts.groups.tolist())),
        null_value=mean,
        null_percentile=percentile,
        n_of="groups of prompts",
    )
    return row, measured
