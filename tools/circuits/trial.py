"""The tool `test_circuit`: all that a verdict on a circuit rests on, on prompts that its search did not see."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats as scipy_stats

from neuronaut.tools.circuits.measures import (
    N_RANDOM,
    SIDE,
    Beside,
    Minimality,
    Shared,
    beside_random,
    curve,
    grouped,
    harm,
    minimality,
    random_circuits,
    share_of,
)
from neuronaut.tools.circuits.nodes import Ablation, Array, Mask, NodeRuns, component_of, mask_of, members_of
from neuronaut.tools.drawn.curves import Series
from neuronaut.tools.drawn.svg import Axes
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Figure
from neuronaut.tools.figures import curve as drawn_curve
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import ratio_samples
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tasks.base import Solved, TaskPrompts, solved
from neuronaut.tools.tasks.catalogue import task_named

BLOCKS = 3
BLOCK = 64  # prompts that are drawn for a block, and groups that it may have
MIN_GROUPS = 8  # fewer carry no bound worth printing
FOR_RANDOM = 32  # prompts on which random circuits are run, of different groups while they last
OTHER_TEXTS = 24
HARM_NULLS = 5


class TestCircuitArgs(ToolArgs):
    """The circuit of a task ("indirect object" or "task:indirect object"), and which block of unseen prompts is opened.

    members: whole heads and MLPs ("L4H2", "mlp3"). Where one of them is at one role ("L4H2@end"), all nodes are by role, and a
    whole one is at every role.
    """

    __test__: ClassVar = False  # no test of pytest
    example: ClassVar = {
        "unit": "indirect object",
        "members": ["L0H0", "L0H3", "L2H1", "L4H2", "L4H3", "L5H0"],
        "n": 24,
    }
    unit: str
    members: tuple[str, ...] = Field(min_length=1, max_length=10_000)
    block: int = Field(default=0, ge=0, lt=BLOCKS)
    seed: int = 0
    how: Ablation = "resample"
    corruption: str | None = None
    n: int = Field(default=BLOCK, ge=8, le=BLOCK)
    n_random: int = Field(default=N_RANDOM, ge=N_RANDOM, le=10_000)


@tool("test_circuit", opens_test_text=True)
def test_circuit(context: ToolContext, args: TestCircuitArgs) -> ToolResult:
    """Whether a set of nodes carries a task, on prompts whose fillers no search saw: sufficiency, necessity, minimality, harm.

    sufficiency: share of the clean-corrupted gap that is left when everything else carries corrupted prompts (1 is the whole
    model, null 0; percentile among at least 200 random circuits of as many members of each type). necessity: share that is
    left when the members carry corrupted prompts (0 is nothing). minimality: of each member the p, after Holm, of "its
    removal hurts no more than that of the non-member at the 95th percentile", each put into the circuit and taken out again.
    harm: nats a token that other text loses when the members carry their mean (null: random circuits). Bounds are one-sided
    95 %, groups of prompts (wording and filler) drawn again. Members at roles: random circuits have as many of each type
    and role, non-members stand at the member's role; other text has no roles, so that harm is that of the members' whole
    heads and MLPs (`harm_of`).
    Refuses: members that are no nodes, or at roles that the unseen prompts lack; blocks that are used up.
    Sources: Wang et al. 2022, arXiv:2211.00593; Shi et al. 2024, arXiv:2410.13032.
    """
    target, by_role = context.target, any("@" in name for name in args.members)
    whole = mask_of(target.spec, list(map(component_of, args.members)))
    prompts = unseen(target, args)
    known, runs = solved(target, prompts), NodeRuns(target, prompts, args.how, by_role)
    circuit = mask_of(target.spec, args.members, runs.roles)
    if known.gap <= 0:
        raise ToolRefused(
            f"the corruption {prompts.corruption!r} makes no difference on unseen prompts: choose another"
        )
    alone, without = runs.scores([circuit, ~circuit])
    kept, left = share_of(runs, alone, args.seed), share_of(runs, without, args.seed)
    beside = _beside(runs, circuit, args)
    minimal = minimality(runs, circuit, alone)
    lost, null = _harm(context, whole, args)
    line = curve(runs, circuit, minimal)
    payload = _asked(runs, known, args)
    if by_role:
        payload |= {"roles": list(runs.roles), "harm_of": list(members_of(target.spec, whole))}
        payload["cost_bars"] = {role: round(bar, 5) for role, bar in minimal.bars.items()}
    payload |= _measured(kept, left, beside, minimal) | _harmed(lost, null)
    payload["curve"] = [{"size": size, "share": round(share, 5)} for size, share in line]
    figure = _drawn(prompts.name, line)
    return ToolResult(_measurements(payload, lost), payload, {"random_shares": beside.shares}, (figure,))


def _asked(runs: NodeRuns, known: Solved, args: TestCircuitArgs) -> dict[str, Any]:
    """What is tested, and what the model makes of the unseen prompts."""
    return {
        "task": runs.prompts.name,
        "corruption": runs.prompts.corruption,
        "how": args.how,
        "n": len(runs.prompts),
        "groups": len(grouped(runs, runs.clean)),
        "accuracy": known.accuracy,
        "gap": known.gap,
        "gap_low": _gap_low(runs, args.seed),
        "members": list(args.members),
        "size": int(mask_of(runs.target.spec, args.members, runs.roles).sum()),
        "nodes": len(runs.nodes),
    }


def _drawn(task: str, line: list[tuple[int, float]]) -> Figure:
    axes = Axes(task, "nodes, those that matter most first", "share of the gap", "")
    return drawn_curve("faithfulness", [Series("kept", [s for s, _ in line], [share for _, share in line])], axes)


def unseen(target: TargetModel, args: TestCircuitArgs) -> TaskPrompts:
    """The prompts of one block of the test half: blocks share no group. Refuses a block for which no group is left."""
    task = task_named(args.unit.removeprefix("task:"))
    drawn = task.prompts(target, BLOCKS * BLOCK, seed=0, corruption=args.corruption, half="test")
    n_groups = int(drawn.groups.max()) + 1
    size = max(-(-n_groups // BLOCKS), min(n_groups, BLOCK))
    rows = np.flatnonzero(drawn.groups // size == args.block)
    n_left = len(np.unique(drawn.groups[rows]))
    if n_left < min(MIN_GROUPS, n_groups):
        raise ToolRefused(
            f"{task.name} has no {MIN_GROUPS} groups of prompts left that no test has used: it has {n_groups} in all"
        )
    return drawn.select(_spread(drawn.groups[rows], rows)[: args.n])


def _spread(groups: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row numbers, those of different groups first. groups: (n_rows,)."""
    seen: dict[int, int] = {}
    turns = []
    for group in groups.tolist():
        seen[group] = seen.get(group, -1) + 1
        turns.append(seen[group])
    return rows[np.argsort(turns, kind="stable")]


def _beside(runs: NodeRuns, circuit: Mask, args: TestCircuitArgs) -> Beside:
    """On few prompts of different groups: hundreds of circuits are run."""
    rows = _spread(runs.prompts.groups, np.arange(len(runs.prompts)))[:FOR_RANDOM]
    few = NodeRuns(runs.target, runs.prompts.select(rows), runs.how, runs.by_role)
    others = random_circuits(runs.target.spec, circuit, args.n_random, args.seed, runs.roles)
    return beside_random(few, few.scores([circuit])[0], others)


def _gap_low(runs: NodeRuns, seed: int) -> float:
    """The lower bound of the clean-corrupted gap, nats."""
    total, size = grouped(runs, runs.clean - runs.corrupted), grouped(runs, np.ones(len(runs.prompts)))
    return float(np.quantile(ratio_samples(total, size, seed), SIDE))


def _harm(context: ToolContext, circuit: Mask, args: TestCircuitArgs) -> tuple[Array, list[float]]:
    """Of each document, and the mean of some random circuits. circuit: of whole heads and MLPs."""
    tokens = context.tokens("confirm", args.block)
    tokens = tokens.select(range(min(OTHER_TEXTS, len(tokens))))
    others = random_circuits(context.target.spec, circuit, HARM_NULLS, args.seed + 1)
    return harm(context.target, circuit, tokens), [float(harm(context.target, one, tokens).mean()) for one in others]


def _measured(kept: Shared, left: Shared, beside: Beside, minimal: Minimality) -> dict[str, Any]:
    return {
        "sufficiency": kept.share,
        "sufficiency_low": kept.low,
        "percentile": beside.percentile,
        "random_best": float(beside.shares.max()) if len(beside.shares) else None,
        "n_random": len(beside.shares),
        "bets": list(beside.bets),
        "necessity": left.share,
        "necessity_high": left.high,
        "minimality": dict(minimal.p_values),
        "costs": {name: round(cost, 5) for name, cost in minimal.costs.items()},
        "cost_bar": round(minimal.bar, 5),
    }


def _harmed(lost: Array, null: list[float]) -> dict[str, Any]:
    mean = float(lost.mean())
    spread = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else 0.0
    high = mean + float(scipy_stats.t.ppf(1 - SIDE, max(len(lost) - 1, 1))) * spread
    return {"harm": mean, "harm_high": high, "harm_random": float(np.mean(null)) if null else None}


def _measurements(payload: dict[str, Any], lost: Array) -> tuple[Measurement, ...]:
    n, unit = payload["groups"], "share of the gap"
    return (
        Measurement(
            "sufficiency",
            payload["sufficiency"],
            unit,
            n,
            null_value=payload["random_best"],
            null_percentile=payload["percentile"],
            n_of="groups of prompts",
        ),
        Measurement("necessity", payload["necessity"], unit, n, null_value=1.0, n_of="groups of prompts"),
        Measurement("harm", payload["harm"], "nats a token", len(lost), null_value=payload["harm_random"]),
    )
