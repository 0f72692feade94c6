"""How a read-out follows the activation of a unit that is set, taken out or scaled: slopes, and the direct path apart."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.readouts.moved import Reader
from neuronaut.tools.readouts.places import Beside, Places, follows, reach
from neuronaut.tools.stats import mean_interval
from neuronaut.tools.targets.base import Edit
from neuronaut.tools.targets.sites import out_of

Floats = NDArray[np.float64]
How = Literal["set", "zero", "scale"]
Patch = tuple[Literal["set", "scale"], float]  # an edit of the unit, and its value
SCALES = (0.0, 0.5, 1.5, 2.0)
N_SET = 5
SMALLEST = 1e-6  # change of an activation, below which an input tells no slope
WHERE = ("last", "all")


def set_values(seen: Beside) -> list[float]:
    """The activations that are set: five, evenly from the unit's lowest to its highest on explore text, but for one in 1000."""
    return [float(value) for value in np.linspace(*reach(seen.activation), N_SET)]


def doses(reader: Reader, chosen: Places, values: list[float]) -> list[dict[str, Any]]:
    """A row for each way to patch and each choice of positions; see `row_of`."""
    plan: dict[How, list[Patch]] = {
        "set": [("set", value) for value in values],
        "zero": [("set", 0.0)],
        "scale": [("scale", share) for share in SCALES],
    }
    return [row_of(reader, chosen, how, where, patches) for how, patches in plan.items() for where in WHERE]


def row_of(reader: Reader, chosen: Places, how: How, where: str, patches: list[Patch]) -> dict[str, Any]:
    """Slope of the read-out (in its own unit) on the activation, through the unpatched point, with r2 and the slopes of the
    inputs; direct: the same by what the MLP writes at the place alone; rest: what comes by other ways."""
    at = chosen.activation[torch.arange(len(chosen)), chosen.at].double().numpy()
    patched = [_patched(reader, chosen, where, patch) for patch in patches]
    x = np.stack([(value * at if way == "scale" else np.full_like(at, value)) - at for way, value in patches])
    total, direct = (np.stack(column) * reader.spread for column in zip(*patched, strict=True))
    slopes = _slopes(x, total)
    r2 = _r2(x, total)
    return {
        "how": how, "where": where, "n": int(np.isfinite(slopes).sum()), "slope": _mean(slopes), "interval": _interval(slopes),
        "r2": r2, "direct": _mean(_slopes(x, direct)), "rest": _mean(_slopes(x, total - direct)),
        "inputs": [round(float(one), 6) for one in slopes[np.isfinite(slopes)]],
        "moves": [
            {"to": to, "mean": float(one.mean()), "interval": _interval(one)} for (_, to), one in zip(patches, total, strict=True)
        ],
    }  # fmt: skip


def _patched(reader: Reader, chosen: Places, where: str, patch: Patch) -> tuple[Floats, Floats]:
    """(n,) change of the read-out, and that by the direct path."""
    edit = Edit(reader.own, *patch, reader.unit.index, chosen.mask(where))
    if not follows(reader.head.site, reader.unit):
        change = reader.change(chosen, [edit])
        return change, np.zeros_like(change)
    out, site = out_of(reader.target, reader.own), reader.head.site
    after, written = chosen.run(reader.target, [site, out], [edit])
    before = _written(reader, chosen)
    return reader.between(chosen, after), reader.between(chosen, chosen.residual + written - before)


def _written(reader: Reader, chosen: Places) -> Tensor:
    return chosen.run(reader.target, [out_of(reader.target, reader.own)], [])[0]


def _slopes(x: Floats, y: Floats) -> Floats:
    """(n,) of each input, through the unpatched point; NaN where the activation was not changed."""
    weight = np.square(x).sum(axis=0)
    told = weight > SMALLEST**2
    return np.divide((x * y).sum(axis=0), weight, out=np.full(x.shape[1], np.nan), where=told)


def _r2(x: Floats, y: Floats) -> float | None:
    """Of one slope for all inputs; None where the read-out is not moved at all."""
    whole, weight = float(np.square(y).sum()), float(np.square(x).sum())
    if whole <= 1e-18 or weight <= SMALLEST**2:
        return None
    slope = float((x * y).sum()) / weight
    return 1 - float(np.square(y - slope * x).sum()) / whole


def _mean(slopes: Floats) -> float | None:
    known = slopes[np.isfinite(slopes)]
    return float(known.mean()) if len(known) else None


def _interval(values: Floats) -> list[float] | None:
    found = mean_interval(values[np.isfinite(values)])
    return None if found is None else list(found)
