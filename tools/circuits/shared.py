"""The tool `shared_circuits`: which heads and MLPs several tasks share, and whether each task needs what they share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.circuits.crossed import Row, crossed, overlaps
from neuronaut.tools.circuits.levels import Asked, Level, asked_of, circuits_of, level_row
from neuronaut.tools.circuits.nodes import Ablation, Mask, members_of, nodes_of
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, heat_map
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool


class SharedCircuitsArgs(ToolArgs):
    """Which tasks, and how much of each its circuits keep.

    levels: shares of the clean-corrupted gap that circuits keep, each searched inside the stricter one; at the middle one
    parts are taken away across tasks. n: prompts of a search, and as many held out. how: what all else carries.
    """

    example: ClassVar = {"tasks": ["months", "days"], "levels": [0.9], "n": 8, "n_random": 20}
    tasks: tuple[str, ...] = Field(min_length=2, max_length=8)
    levels: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.98, 0.9, 0.8), min_length=1, max_length=5
    )
    how: Ablation = "resample"
    n: int = Field(default=24, ge=8, le=256)
    n_random: int = Field(default=40, ge=20, le=1000)
    seed: int = 0


@tool("shared_circuits")
def shared_circuits(context: ToolContext, args: SharedCircuitsArgs) -> ToolResult:
    """Circuits of several tasks at several levels of faithfulness, what they share, and what is left of each task without
    the circuit of another, without what both share, and without what is the other's alone.

    tasks: accuracy and log-odds beside those of the corrupted prompts (chance); a task that the target cannot do (accuracy
    below 0.8) gets no circuit and says why. kept: share of the gap on prompts whose wording and first item the search did
    not see; null: the best of 20 random circuits of as many heads and MLPs. jaccard: 1 for equal circuits; null: 200 pairs of
    random circuits. left: 1 is unharmed, 0 all is lost, on the same unseen prompts with one-sided 95 % bounds; null: mean
    without random circuits of the size, percentile of them that harm more. needed: at most 0.5 is left and 0.25 less than
    at random; not needed: at least 0.8 is left.
    Refuses: a task named twice; fewer than two tasks that the target can do.
    Source: Lan et al. 2024, arXiv:2311.04131, "Towards Interpretable Sequence Continuation".
    """
    if len(set(args.tasks)) < len(args.tasks):
        raise ToolRefused(f"a task is named twice among {', '.join(args.tasks)}: name different ones")
    both = [asked_of(context.target, name, args.n, args.seed, args.how) for name in args.tasks]
    rows, asked = [row for row, _ in both], [one for _, one in both if one is not None]
    if len(asked) < 2:
        why = "; ".join(f"{row['task']}: {row['why']}" for row in rows if not row["can"])
        raise ToolRefused(f"{context.target.spec.name} can do {len(asked)} of these tasks, and two are needed ({why})")
    found = {one.name: circuits_of(one, args.levels, args.seed) for one in asked}
    payload, figures = studied(asked, found, args.n_random, args.seed)
    return ToolResult(_measurements(asked, payload), {"tasks": rows} | payload, figures=figures)


def studied(
    asked: Sequence[Asked], found: Mapping[str, Sequence[Level]], n_random: int, seed: int
) -> tuple[dict[str, Any], tuple[Figure, ...]]:
    """Circuits, overlaps at each level, and what is left without parts of each other's at the middle one, with pictures."""
    spec, n_levels = asked[0].search.target.spec, len(next(iter(found.values())))
    middle = n_levels // 2
    each = [{name: circuits[at].mask for name, circuits in found.items()} for at in range(n_levels)]
    shared = np.logical_and.reduce(list(each[middle].values()))
    levels = [next(iter(found.values()))[at].level for at in range(n_levels)]
    payload = {
        "levels": levels,
        "crossed_at": levels[middle],
        "nodes": len(nodes_of(spec)),
        "circuits": [level_row(one, level) for one in asked for level in found[one.name]],
        "overlaps": [
            {"level": level} | row
            for level, masks in zip(levels, each, strict=True)
            for row in overlaps(asked, masks, seed)
        ],
        "shared_by_all": list(members_of(spec, shared)),
        "crossed": crossed(asked, each[middle], n_random, seed),
    }
    return payload, (_members(asked, each), _overlap(payload), _left(asked, payload))


def _measurements(asked: Sequence[Asked], payload: Mapping[str, Any]) -> tuple[Measurement, ...]:
    """The overlap of each pair at the middle level, and what is left of each task without the circuit of each."""
    found, spread = [], {one.name: int(one.held.prompts.groups.max()) + 1 for one in asked}
    for row in payload["overlaps"]:
        if row["level"] == payload["crossed_at"]:
            name, unit, above = "jaccard " + " | ".join(row["tasks"]), "share of the members", 100 * (1 - row["p"])
            n, null = payload["nodes"], row["jaccard_random"]
            found.append(Measurement(name, row["jaccard"], unit, n, None, null, above, n_of="parts"))
    for row in payload["crossed"]:
        name, unit = f"{row['task']} without {row['of']}, {row['part']}", "share of the gap"
        null, n = (row["random"], row["percentile"]), spread[row["task"]]
        found.append(Measurement(name, row["left"], unit, n, None, *null, n_of="groups of prompts"))
    return tuple(found)


def _members(asked: Sequence[Asked], each: Sequence[Mapping[str, Mask]]) -> Figure:
    """Of each part that is in any circuit, at how many levels it is in that of each task."""
    counts = np.stack([np.sum([masks[one.name] for masks in each], axis=0) for one in asked], axis=1)
    rows = np.flatnonzero(counts.any(axis=1))
    names = [str(nodes_of(asked[0].search.target.spec)[at]) for at in rows]
    notes = (f"of {len(each)} levels; the strictest circuit has the most parts",)
    axes = Axes("Parts of the circuit of each task", unit="levels at which the part is in", notes=notes)
    return heat_map("shared_members", counts[rows], names, [one.name for one in asked], axes)


def _overlap(payload: Mapping[str, Any]) -> Figure:
    names = list(dict.fromkeys(row["task"] for row in payload["circuits"]))
    grid = np.eye(len(names))
    rows = [row for row in payload["overlaps"] if row["level"] == payload["crossed_at"]]
    for row in rows:
        one, other = (names.index(name) for name in row["tasks"])
        grid[one, other] = grid[other, one] = row["jaccard"]
    random = float(np.mean([row["jaccard_random"] for row in rows]))
    note = f"random circuits of these sizes: {random:.2f}"
    axes = Axes(f"Overlap of circuits that keep {payload['crossed_at']:g}", "", "", "Jaccard", (note,))
    return heat_map("shared_overlap", grid, names, names, axes)


def _left(asked: Sequence[Asked], payload: Mapping[str, Any]) -> Figure:
    names = [one.name for one in asked]
    grid, rows = np.full((len(names), len(names)), np.nan), list[Row](payload["crossed"])
    for row in rows:
        if row["part"] == "all":
            grid[names.index(row["task"]), names.index(row["of"])] = row["left"]
    random = [row["random"] for row in rows if row["part"] == "all" and row["random"] is not None]
    notes = (f"without random circuits of these sizes: {np.mean(random):.2f}",) if random else ()
    axes = Axes(
        "What is left of a task (row) without a circuit (column)", "circuit of", "task", "share of the gap", notes
    )
    return heat_map("shared_left", grid, names, names, axes)
