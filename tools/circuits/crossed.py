"""Circuits of several tasks beside each other: what they share, and what is left of each task without parts of another's."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np

from neuronaut.tools.circuits.compare import random_overlap
from neuronaut.tools.circuits.find import jaccard
from neuronaut.tools.circuits.levels import Asked
from neuronaut.tools.circuits.measures import random_circuits, share_of
from neuronaut.tools.circuits.nodes import Mask, NodeRuns, members_of
from neuronaut.tools.stats import percentile_of, permutation_p

Finding = Literal["needed", "not needed", "between"]
Row = dict[str, Any]

# What decides, fixed before any held-out prompt is looked at.
NEEDED = 0.5  # of the gap: no more is left, by the upper bound, without parts that a task needs
STANDS = 0.8  # at least so much, by the lower bound, without parts that it does not need
MORE = 0.25  # of the gap that random circuits of the size have to leave beyond that
BEYOND = 5.0  # percent of them that may harm more
SAME = 0.01  # shares of the gap that are one
N_PAIRS = 200  # of random circuits, for the overlap
FOR_RANDOM = 16  # prompts on which random circuits are run


def overlaps(asked: Sequence[Asked], circuits: Mapping[str, Mask], seed: int) -> list[Row]:
    """Of each pair of tasks what their circuits share, beside pairs of random circuits of as many heads and MLPs.

    p: share of such pairs that overlap at least as much, one added to both counts.
    """
    spec, found = asked[0].search.target.spec, []
    for one, other in combinations(circuits, 2):
        mine, theirs = circuits[one], circuits[other]
        overlap, null = jaccard(mine, theirs), random_overlap(spec, mine, theirs, N_PAIRS, seed)
        row = {"tasks": [one, other], "shared": list(members_of(spec, mine & theirs)), "jaccard": round(overlap, 5)}
        found.append(
            row | {"jaccard_random": round(float(null.mean()), 5), "p": round(permutation_p(overlap, null), 5)}
        )
    return found


def crossed(asked: Sequence[Asked], circuits: Mapping[str, Mask], n_random: int, seed: int) -> list[Row]:
    """What is left of each task on held-out prompts without the circuit of each task, without what the two share, and
    without what is the other's alone; each beside random circuits of as many heads and MLPs, and what follows from it."""
    found = []
    for one in asked:
        for name, theirs in circuits.items():
            mine = circuits[one.name]
            parts = (
                {"all": theirs} if name == one.name else {"all": theirs, "shared": theirs & mine, "own": theirs & ~mine}
            )
            for part, removed in parts.items():
                if removed.any():
                    row = {"task": one.name, "of": name, "part": part}
                    found.append(row | without(one.held, removed, n_random, seed))
    return found


def without(runs: NodeRuns, removed: Mask, n_random: int, seed: int) -> Row:
    """What is left of a task without some parts, with its bounds, beside random circuits of as many of each type."""
    left = share_of(runs, runs.scores([~removed])[0], seed)
    rows = range(min(FOR_RANDOM, len(runs.prompts)))
    few = NodeRuns(runs.target, runs.prompts.select(rows), runs.how)
    others = random_circuits(runs.target.spec, removed, n_random, seed)
    here, *null = few.scores([~removed, *(~mask for mask in others)])
    shares = np.array([few.share(one) for one in null])
    row = {
        "size": int(removed.sum()),
        "left": round(left.share, 5) + 0.0,
        "low": round(left.low, 5) + 0.0,
        "high": round(left.high, 5) + 0.0,
    }
    if not len(shares):
        return row | {"random": None, "percentile": None, "finding": finding(left.low, left.high, None, None)}
    mean, percentile = float(shares.mean()), percentile_of(few.share(here) - SAME, shares)
    found = finding(left.low, left.high, mean, percentile)
    return row | {"random": round(mean, 5), "percentile": round(percentile, 2), "finding": found}


def finding(low: float, high: float, random: float | None, percentile: float | None) -> Finding:
    """Whether a task needs the parts that were taken away: little is left without them, and less than without random ones."""
    if low >= STANDS:
        return "not needed"
    if random is None or percentile is None or high > NEEDED:
        return "between"
    return "needed" if percentile <= BEYOND and high <= random - MORE else "between"
