"""The tool `find_circuit`: which heads and MLPs carry a task, by pruning nodes or by scoring edges."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.circuits.acdc import acdc
from neuronaut.tools.circuits.edges import circuit_scores, edge_scores, top_edges
from neuronaut.tools.circuits.measures import minimality, random_circuits
from neuronaut.tools.circuits.nodes import Ablation, Mask, NodeRuns, mask_of, members_of, nodes_of
from neuronaut.tools.circuits.picture import circuit_graph
from neuronaut.tools.circuits.pruning import Pruned, PruneOrder, Step, prune, prune_by_role
from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.drawn.curves import Series
from neuronaut.tools.drawn.svg import Axes
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Figure, curve
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.tasks.base import require_solved
from neuronaut.tools.tasks.catalogue import task_named

Search = Literal["nodes", "eap", "eap_ig", "acdc"]
N_NULL = 20
MINIMAL = 0.05  # p, after Holm


class FindCircuitArgs(ToolArgs):
    """The task, and how its circuit is searched.

    method: `nodes` prunes whole heads and MLPs, the others single edges. order: in which nodes are tried. threshold: share
    of the clean-corrupted gap that the circuit keeps. nats: for acdc instead, by which one edge may move the prediction.
    how: what all else carries, the corrupted twin's value or the mean over corrupted prompts (edges: always the twin's).
    reruns: further searches of nodes, in random order, to see whether they find the same. budget: forwards of a
    search; its null, its idle members and its figure come on top. positions: what
    pruning leaves is split by the roles of the prompt ("L4H2@end", "mlp3@subject") and pruned again; positions at which no
    slot stands in every prompt are one role, "rest".
    """

    example: ClassVar = {"task": "indirect object", "n": 24, "reruns": 1}
    task: str
    method: Search = "nodes"
    order: PruneOrder = "effect"
    threshold: float = Field(default=0.9, gt=0, le=1)
    nats: float = Field(default=0.03, gt=0, le=100)
    how: Ablation = "resample"
    corruption: str | None = None
    n: int = Field(default=48, ge=8, le=512)
    seed: int = 0
    reruns: int = Field(default=2, ge=0, le=16)
    budget: float = Field(default=50_000, ge=100)
    positions: bool = False


class Found(NamedTuple):
    """A circuit. steps: what was accepted on the way. edges: (), order: None and components: None where they do not apply;
    components: the whole heads and MLPs that were pruned by position."""

    mask: Mask
    share: float
    steps: Sequence[Step]
    complete: bool
    edges: tuple[str, ...] = ()
    order: PruneOrder | None = None
    components: Pruned | None = None


@tool("find_circuit")
def find_circuit(context: ToolContext, args: FindCircuitArgs) -> ToolResult:
    """Heads and MLPs that keep a share of a task's clean-corrupted gap when everything else carries corrupted prompts.

    share: 1 is the whole model, 0 the corrupted prompts; measured on the prompts of the search, so that it flatters the
    circuit: `test_circuit` measures it on others. null: the largest share of 20 random circuits of as many members of each
    type (and role, by positions). idle: members whose removal costs no more than a non-member's there; idle_p: the largest p
    of a member, 1 where the budget was spent. reruns: searches in random order and their Jaccard overlap with the circuit.
    Refuses: a task that the target cannot do (accuracy below 0.8), or whose corruption changes nothing; positions of edges.
    Sources: Wang et al. 2022, arXiv:2211.00593; Lan et al. 2024, arXiv:2311.04131; Hanna et al. 2024, arXiv:2403.17806;
    Conmy et al. 2023, arXiv:2304.14997.
    """
    target = context.target
    if args.positions and args.method != "nodes":
        raise ToolRefused(f"{args.method!r} finds edges at all positions: search by positions with method 'nodes'")
    prompts = task_named(args.task).prompts(target, args.n, seed=args.seed, corruption=args.corruption)
    known = require_solved(target, prompts)
    kept = prompts.select(np.flatnonzero(known.kept))
    runs, before = NodeRuns(target, kept, args.how, by_role=args.positions), target.forwards
    found = _searched(runs, args)
    if not found.mask.any():
        raise ToolRefused(
            f"no {args.method} circuit keeps {args.threshold:g} of {args.task!r}: ask for less, or for nodes"
        )
    again = _reruns(runs, args, found.mask, args.budget - (target.forwards - before))
    share = _share(runs, found, args.seed)
    p_values = minimality(runs, found.mask, runs.scores([found.mask])[0]).p_values if found.complete else {}
    payload = _payload(runs, args, found, again) | {
        "idle": [name for name, p in p_values.items() if p > MINIMAL],
        "idle_p": max(p_values.values(), default=1.0),
        "accuracy": known.accuracy,
        "gap": known.gap,
        "forwards": target.forwards - before,
    }
    return ToolResult((share,), payload, figures=(*_graph(runs, payload["members"]), *_faithfulness(args.task, found)))


def _share(runs: NodeRuns, found: Found, seed: int) -> Measurement:
    """What a circuit keeps on the prompts of the search, beside random ones."""
    others = random_circuits(runs.target.spec, found.mask, N_NULL, seed, runs.roles)
    null = [runs.share(scores) for scores in runs.scores(others)]
    return Measurement(
        "share",
        found.share,
        "share of the gap" if found.complete else "share of the gap, search stopped by its budget",
        len(set(runs.prompts.groups.tolist())),
        null_value=max(null, default=None),
        null_percentile=percentile_of(found.share, null) if null else None,
        n_of="groups of prompts",
    )


def _graph(runs: NodeRuns, members: list[str]) -> tuple[Figure, ...]:
    """The circuit; nothing for a model whose edges cannot be run."""
    try:
        return (circuit_graph(runs, members),)
    except ToolRefused:
        return ()


def _faithfulness(task: str, found: Found) -> tuple[Figure, ...]:
    """What was kept at each size on the way; nothing where there was but one."""
    steps = sorted({step.size: step.share for step in found.steps}.items())
    line = Series("kept on search prompts", [size for size, _ in steps], [kept for _, kept in steps])
    axes = Axes(task, "members" if not found.edges else "edges", "share of the gap", "")
    return (curve("faithfulness", [line], axes),) if len(steps) > 1 else ()


def _searched(runs: NodeRuns, args: FindCircuitArgs) -> Found:
    if args.method == "nodes":
        return _pruned(runs, order=args.order, threshold=args.threshold, seed=args.seed, budget=args.budget)
    wires = Wires.of(runs.target.spec)
    if args.method == "acdc":
        left = acdc(runs.target, runs.prompts, threshold=args.nats, budget=args.budget)
        return _of_edges(runs, wires, left.kept, [], complete=left.complete)
    scores = edge_scores(runs.target, runs.prompts, method=args.method)
    limit, steps = runs.target.forwards + args.budget, list[Step]()
    low, high = 1, int(wires.possible.sum())
    while low < high and runs.target.forwards < limit:
        middle = (low + high) // 2
        steps.append(Step(middle, _kept_by(runs, top_edges(wires, scores, middle))))
        low, high = (low, middle) if steps[-1].share >= args.threshold else (middle + 1, high)
    return _of_edges(runs, wires, top_edges(wires, scores, high), steps, complete=low >= high)


def _pruned(runs: NodeRuns, *, order: PruneOrder, threshold: float, seed: int, budget: float) -> Found:
    if not runs.by_role:
        left = prune(runs, order=order, threshold=threshold, seed=seed, budget=budget)
        return Found(left.mask, left.share, left.steps, left.complete, order=left.order)
    first, left = prune_by_role(runs, order=order, threshold=threshold, seed=seed, budget=budget)
    return Found(left.mask, left.share, left.steps, left.complete, order=left.order, components=first)


def _kept_by(runs: NodeRuns, kept: Tensor) -> float:
    """The share of the gap that a circuit of edges keeps."""
    return runs.share(circuit_scores(runs.target, runs.prompts, kept).numpy())


def _of_edges(runs: NodeRuns, wires: Wires, kept: Tensor, steps: list[Step], *, complete: bool) -> Found:
    """The nodes that a circuit of edges goes through, and its edges."""
    senders = {wires.senders[at] for at in torch.nonzero(kept.any(dim=0)).flatten().tolist()} - {"embed"}
    share = _kept_by(runs, kept) if bool(kept.any()) else 0.0
    edges = tuple(str(edge) for edge in wires.edges(kept))
    return Found(mask_of(runs.target.spec, senders), share, [*steps, Step(len(edges), share)], complete, edges)


def _reruns(runs: NodeRuns, args: FindCircuitArgs, mask: Mask, budget: float) -> list[dict[str, Any]]:
    """Searches of nodes in random order, each with its overlap; none where the budget is spent."""
    found = []
    limit = runs.target.forwards + budget
    for number in range(args.reruns if args.method == "nodes" else 0):
        left = limit - runs.target.forwards
        if left < len(runs.prompts) * len(nodes_of(runs.target.spec)):
            break
        other = _pruned(runs, order="random", threshold=args.threshold, seed=args.seed + 1 + number, budget=left)
        found.append(
            {
                "members": list(members_of(runs.target.spec, other.mask, runs.roles)),
                "share": round(other.share, 5),
                "jaccard": round(jaccard(mask, other.mask), 5),
                "complete": other.complete,
            }
        )
    return found


def jaccard(one: Mask, other: Mask) -> float:
    """Shared members among all members of two circuits; 1 for equal ones, two empty ones too."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


def _payload(runs: NodeRuns, args: FindCircuitArgs, found: Found, again: list[dict[str, Any]]) -> dict[str, Any]:
    prompts = runs.prompts
    payload = {
        "task": args.task,
        "method": args.method,
        "order": found.order,
        "how": args.how,
        "threshold": args.threshold if args.method != "acdc" else None,
        "corruption": prompts.corruption,
        "members": list(members_of(runs.target.spec, found.mask, runs.roles)),
        "edges": list(found.edges),
        "size": int(found.mask.sum()),
        "nodes": len(runs.nodes),
        "share": round(found.share, 5),
        "complete": found.complete,
        "steps": [{"size": step.size, "share": round(step.share, 5)} for step in found.steps],
        "reruns": again,
        "jaccard": round(float(np.mean([one["jaccard"] for one in again])), 5) if again else None,
        "n": len(prompts),
        "wordings": _wordings(runs, args),
    }
    if found.components is not None:
        whole = members_of(runs.target.spec, found.components.mask)
        payload |= {
            "roles": list(runs.roles),
            "components": list(whole),
            "components_share": round(found.components.share, 5),
        }
    return payload


def _wordings(runs: NodeRuns, args: FindCircuitArgs) -> list[str]:
    return [wording.text for wording in task_named(args.task).wordings_for(runs.target)]
