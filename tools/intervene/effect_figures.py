"""Effects as figures: grids of patching, dose and response of steering."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuronaut.tools.figures import Axes, Figure, Series, curve, heat_map

MOST_COLUMNS = 40  # of a grid of neurons: those of the largest effect


def patch_figures(name: str, payload: Mapping[str, Any]) -> tuple[Figure, ...]:
    """The grid of `patch` or `attribution_patch`, layers rising, from what they tell."""
    layers = [f"layer {row['layer']}" for row in payload["rows"]]
    grid = np.array([row["effect"] for row in payload["rows"]], dtype=np.float64)
    columns = [_column(one) for one in payload["columns"]]
    if payload["site"] == "neurons" and len(columns) > MOST_COLUMNS:
        kept = np.sort(np.argsort(-np.abs(grid[0]), kind="stable")[:MOST_COLUMNS])
        grid, columns = grid[:, kept], [columns[i] for i in kept]
    what = {"heads": "head", "neurons": "neuron, those of the largest effect"}.get(payload["site"], "token")
    done = "comes back" if payload["direction"] == "denoise" else "is lost"
    notes = (f"1 is all of it: from {payload['corrupted']:.4g} (corrupted) to {payload['clean']:.4g} (clean)",)
    axes = Axes(f"How much of {payload['metric']} {done}, by {payload['site']}", what, "", "share", notes)
    return (heat_map(name, grid, layers, columns, axes, rising=True),)


def _column(one: Any) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    return str(one["clean"]) if one["clean"] == one["corrupted"] else f"{one['clean']}/{one['corrupted']}"


def steer_figures(payload: Mapping[str, Any]) -> tuple[Figure, ...]:
    """The curve of `steer` with the mean line of each null, from what it tells."""
    doses = [row["dose"] for row in payload["curve"]]
    lines = [Series(payload["unit"], doses, [row["log_prob"] for row in payload["curve"]])]
    for name, null in payload["null_slopes"].items():
        if null["null_value"] is not None:
            at = [payload["intercept"] + null["null_value"] * dose for dose in doses]
            lines.append(Series(f"{name.replace('_', ' ')}, mean line of {null['n']}", doses, at))
    axes = Axes(f"{payload['how']} {payload['unit']}", "dose", f"log-probability of {payload['token']!r}", "nats")
    return (curve("steer", lines, axes),)
