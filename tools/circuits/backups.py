"""The tool `backup_heads`: what remains of a task without its most important head, and which parts then matter more."""

from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from neuronaut.tools.circuits.levels import BUDGET
from neuronaut.tools.circuits.measures import SIDE, grouped, turned
from neuronaut.tools.circuits.nodes import Ablation, Array, NodeRuns, mask_of, members_of
from neuronaut.tools.circuits.pruning import prune
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, layer_map
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import document_weights
from neuronaut.tools.tasks.base import require_solved
from neuronaut.tools.tasks.catalogue import task_named

LEAST = 0.05  # of the gap, below which a part is no backup, whatever the random heads do
LISTED = 8


class BackupHeadsArgs(ToolArgs):
    """The task, and the head that is taken out: the one without which most is lost, where none is named.

    keep: share of what is left that the circuit without the head keeps. n_random: other heads that are taken out in its
    place. how: what a part that is taken out carries.
    """

    example: ClassVar = {"task": "months", "n": 8, "n_random": 2}
    task: str
    head: str | None = None
    keep: float = Field(default=0.9, gt=0, le=1)
    how: Ablation = "resample"
    n: int = Field(default=24, ge=8, le=256)
    n_random: int = Field(default=6, ge=2, le=100)
    seed: int = 0


class Grown(NamedTuple):
    """How much more each part is worth once another is out, (n_nodes,) shares of the gap: before, after, and the lower
    bound of the difference (one-sided 95 %, groups drawn again); 0 at the part itself. left: share without that part."""

    before: Array
    after: Array
    low: Array
    left: float

    @property
    def rise(self) -> Array:
        """(n_nodes,) after less before."""
        return self.after - self.before


@tool("backup_heads")
def backup_heads(context: ToolContext, args: BackupHeadsArgs) -> ToolResult:
    """What is left of a task without its most important head, and the parts that are worth more once it is out: backups.

    left: share of the clean-corrupted gap, 1 unharmed, 0 all lost. worth: share that is lost when the part is taken out too;
    rise: of it, after less before. A backup rises by at least 0.05, by its lower bound above 0, and more than any part
    does when one of `n_random` other heads is taken out in its place (null). instead: the circuit that keeps `keep` of what
    is left without the head, and which of its parts the circuit of the whole model has not.
    Refuses: a task that the target cannot do; a name that is no head.
    Source: Wang et al. 2022, arXiv:2211.00593, section 3.4 (backup name movers).
    """
    target = context.target
    prompts = task_named(args.task).prompts(target, args.n, seed=args.seed)
    known = require_solved(target, prompts)
    runs = NodeRuns(target, prompts.select(np.flatnonzero(known.kept)), args.how)
    head = _head_of(runs, args.head)
    grown, others = taken_out(runs, head, args.seed), random_heads(runs, head, args.n_random, args.seed)
    bars = [float(taken_out(runs, other, args.seed).rise.max()) for other in others]
    found = backups_of(runs, grown, max([LEAST, *bars]))
    before, instead = _circuits(runs, head, grown.left, args)
    names = [str(node) for node in runs.nodes]
    payload: dict[str, Any] = {
        "task": args.task,
        "head": names[head],
        "left": round(grown.left, 5),
        "heads": _costs(runs)[:LISTED],
        "backups": found,
        "parts": _risen(runs, grown),
        "random_best": round(max(bars), 5),
        "random_heads": [names[other] for other in others],
        "circuit": before,
        "instead": instead,
        "new": [name for name in instead if name not in before],
        "n": len(runs.prompts),
    }
    n = int(runs.prompts.groups.max()) + 1
    rise = Measurement(
        "rise", float(grown.rise.max()), "share of the gap", n, None, max(bars), n_of="groups of prompts"
    )
    left = Measurement("left", grown.left, "share of the gap", n, null_value=1.0, n_of="groups of prompts")
    return ToolResult((left, rise), payload, figures=(_drawn(runs, grown, args.task, names[head]),))


def taken_out(runs: NodeRuns, out: int, seed: int) -> Grown:
    """What each part is worth in the whole model, and in the model without part `out`."""
    n = len(runs.whole)
    singles = [turned(runs.whole, at) for at in range(n)]
    scores = runs.scores([runs.whole, *singles, *(single & turned(runs.whole, out) for single in singles)])
    plain, alone, both = scores[0], scores[1 : n + 1], scores[n + 1 :]
    before, after = plain - alone, alone[out] - both
    rises = np.stack([grouped(runs, row) for row in after - before], axis=1)  # (n_groups, n_nodes)
    rises[:, out], before[out], after[out] = 0.0, 0.0, 0.0
    gap = grouped(runs, runs.clean - runs.corrupted)
    weights = document_weights(len(gap), seed)
    low = np.quantile(weights @ rises / np.maximum(weights @ gap, 1e-9)[:, None], SIDE, axis=0)
    return Grown(before.mean(axis=1) / runs.gap, after.mean(axis=1) / runs.gap, low, runs.share(alone[out]))


def _risen(runs: NodeRuns, grown: Grown) -> list[dict[str, Any]]:
    """The parts that rise most."""
    each = {"before": grown.before, "after": grown.after, "rise": grown.rise, "low": grown.low}
    ranked = np.argsort(-grown.rise, kind="stable")[:LISTED].tolist()
    return [
        {"part": str(runs.nodes[at])} | {name: round(float(values[at]), 5) for name, values in each.items()}
        for at in ranked
    ]


def backups_of(runs: NodeRuns, grown: Grown, bar: float) -> list[str]:
    """The parts that rise above a bar, the most first."""
    names = [str(node) for node in runs.nodes]
    order = np.argsort(-grown.rise, kind="stable").tolist()
    return [names[at] for at in order if grown.rise[at] > bar and grown.low[at] > 0]


def random_heads(runs: NodeRuns, head: int, n: int, seed: int) -> list[int]:
    """Other heads, drawn at random."""
    others = [at for at, node in enumerate(runs.nodes) if node.head is not None and at != head]
    return [others[at] for at in np.random.default_rng(seed).permutation(len(others))[:n].tolist()]


def _costs(runs: NodeRuns) -> list[dict[str, Any]]:
    """Each head and what its removal from the whole model costs, most first."""
    heads = [at for at, node in enumerate(runs.nodes) if node.head is not None]
    left = [runs.share(scores) for scores in runs.scores([turned(runs.whole, at) for at in heads])]
    rows = [{"head": str(runs.nodes[at]), "cost": round(1 - share, 5)} for at, share in zip(heads, left, strict=True)]
    return sorted(rows, key=lambda row: -float(str(row["cost"])))


def _head_of(runs: NodeRuns, name: str | None) -> int:
    chosen = _costs(runs)[0]["head"] if name is None else name
    at = int(np.flatnonzero(mask_of(runs.target.spec, [chosen]))[0])
    if runs.nodes[at].head is None:
        raise ToolRefused(f"{chosen!r} is an MLP: name a head, as L3H1")
    return at


def _circuits(runs: NodeRuns, head: int, left: float, args: BackupHeadsArgs) -> tuple[list[str], list[str]]:
    """The circuit of the whole model, and that without the head; empty where too little is left to be searched for."""
    spec = runs.target.spec
    found = [prune(runs, order="effect", threshold=args.keep, seed=args.seed, budget=BUDGET).mask]
    if left >= LEAST:
        start = turned(runs.whole, head)
        one = prune(runs, order="effect", threshold=args.keep * left, seed=args.seed, budget=BUDGET, start=start)
        found.append(one.mask)
    names = [list(members_of(spec, mask)) for mask in found]
    return names[0], names[1] if len(names) > 1 else []


def _drawn(runs: NodeRuns, grown: Grown, task: str, head: str) -> Figure:
    """Rises by layer."""
    spec = runs.target.spec
    grid = grown.rise.reshape(spec.n_layers, spec.n_heads + 1)
    columns = [*(f"H{at}" for at in range(spec.n_heads)), "mlp"]
    axes = Axes(f"{task}: what parts are worth more once {head} is out", "", "", "share of the gap")
    return layer_map("backups", grid, axes, columns)
