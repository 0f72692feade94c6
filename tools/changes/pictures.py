"""What changed, as figures: the drift of the residual stream beside noise, and the change of each tensor by layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuronaut.tools.figures import Axes, Figure, Series, curve, heat_map


def pictures(payload: Mapping[str, Any]) -> tuple[Figure, ...]:
    """The drift by layer, and where weights changed, from what `diff_models` tells."""
    return (_drift(payload), *_tensors(payload))


def _drift(payload: Mapping[str, Any]) -> Figure:
    rows = payload["drift"]
    at = list(range(len(rows)))
    ends = [row["interval"] or [row["share"], row["share"]] for row in rows]
    own = Series(payload["other"], at, [row["share"] for row in rows], [e[0] for e in ends], [e[1] for e in ends])
    ranges = [row["noise_range"] for row in rows]
    noise = Series(
        "noise of the same size", at, [row["noise"] for row in rows], [r[0] for r in ranges], [r[1] for r in ranges]
    )
    note = (f"0: the embedding; of noise the mean and range of {min(4, payload['twins'])} checkpoints",)
    axes = Axes(
        f"How far {payload['other']} drifts from {payload['target']}", "after layer", "share of the residual", "", note
    )
    return curve("drift", [own, noise], axes)


def _tensors(payload: Mapping[str, Any]) -> tuple[Figure, ...]:
    inside = [row for row in payload["tensors"] if row["layer"] is not None]
    parts, layers = sorted({row["part"] for row in inside}), sorted({row["layer"] for row in inside})
    if not inside:
        return ()
    grid = np.full((len(layers), len(parts)), np.nan)
    for row in inside:
        if row["relative"] is not None:
            grid[layers.index(row["layer"]), parts.index(row["part"])] = row["relative"]
    axes = Axes("How much each tensor changed, as a share of its norm", "", "", "share")
    return (heat_map("tensors", grid, [f"layer {layer}" for layer in layers], parts, axes, rising=True),)
