"""The direction of a read-out beside the vectors of a unit: cosines, how its weights are spread, and a picture by PCA."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.figures import Axes, Figure, Series, curve
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.readouts.moved import random_directions, read_directions
from neuronaut.tools.readouts.places import Beside
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.sites import site_of, unit_at
from neuronaut.tools.units import Unit

LISTED = 5
N_RANDOM = 200  # vectors of normal entries
TOP = 0.05  # of the entries
DRAWN = 300  # places in the picture
EDGES = np.linspace(-4, 4, 33)


class Vectors(NamedTuple):
    """Unit vectors (d_model,) of a read-out and of a unit, and those of its whole layer (d_mlp, d_model)."""

    direction: Tensor
    reads: Tensor
    writes: Tensor
    unit: Unit

    @classmethod
    def of(cls, target: TargetModel, unit: Unit, direction: Tensor) -> "Vectors":
        """Of a unit, and a direction of any length."""
        normed = torch.nn.functional.normalize
        writes = normed(target.write_vectors(unit.layer, unit.expert), dim=1)
        return cls(normed(direction, dim=0), read_directions(target, unit), writes, unit)


def cosines(target: TargetModel, vectors: Vectors) -> tuple[list[Measurement], dict[str, Any]]:
    """Cosine of the direction with the read and the write vector: z against random vectors, whose cosines have the standard
    deviation 1/√d, percentile of its size among the other units of the layer, and the nearest of all."""
    measured, payload, site, own = [], {}, site_of(target, vectors.unit), vectors.unit.index
    for name, rows in (("read", vectors.reads), ("write", vectors.writes)):
        found = rows @ vectors.direction
        others = torch.cat([found[:own], found[own + 1 :]]).abs()
        cosine = float(found[own])
        percentile = percentile_of(abs(cosine), others.float().numpy())
        null = float(others.median())
        measured.append(Measurement(f"cos_{name}", cosine, "cosine", 1, None, null, percentile, "neurons"))
        nearest = torch.topk(found.abs(), min(LISTED, len(found))).indices.tolist()
        payload[name] = {
            "cosine": cosine,
            "z": cosine * len(vectors.direction) ** 0.5,
            "percentile": percentile,
            "others": null,
            "nearest": [{"unit": unit_at(site, i).address, "cosine": round(float(found[i]), 4)} for i in nearest],
        }
    return measured, payload


class Uneven(NamedTuple):
    """Of a vector's entries: excess kurtosis, and the share of its squared length in the largest twentieth."""

    kurtosis: float
    top_share: float


def spread_of(vectors: Vectors, seed: int) -> dict[str, dict[str, float]]:
    """How unevenly the weights of each vector are spread (see Uneven), beside vectors of normal entries: mean, 95th percentile."""
    own = vectors.unit.index
    named = {"read-out": vectors.direction, "read": vectors.reads[own], "write": vectors.writes[own]}
    random = np.array([_uneven(one) for one in random_directions(N_RANDOM, len(vectors.direction), seed)])
    found = {name: _uneven(one) for name, one in named.items()} | {
        "random": Uneven(*random.mean(axis=0).tolist()),
        "random_95": Uneven(*np.quantile(random, 0.95, axis=0).tolist()),
    }
    return {name: one._asdict() for name, one in found.items()}


def _uneven(vector: Tensor) -> Uneven:
    x = vector.double().numpy()
    centred = x - x.mean()
    kurtosis = float((centred**4).mean() / np.square(centred).mean() ** 2 - 3)
    squares = np.sort(np.square(x))[::-1]
    return Uneven(kurtosis, float(squares[: max(1, round(TOP * len(x)))].sum() / squares.sum()))


def weights_figure(vectors: Vectors, about: str) -> Figure:
    """How the entries of the three vectors are distributed, each in its own standard deviations."""
    own = vectors.unit.index
    named = {about: vectors.direction, "read vector": vectors.reads[own], "write vector": vectors.writes[own]}
    middle = ((EDGES[1:] + EDGES[:-1]) / 2).tolist()
    lines = [Series(name, middle, _density(one)) for name, one in named.items()]
    return curve(
        "weights",
        lines,
        Axes(f"Weights by size, beside those of {vectors.unit.address}", "standard deviations", "density"),
    )


def _density(vector: Tensor) -> list[float]:
    x = vector.double().numpy()
    found, _ = np.histogram((x - x.mean()) / x.std(), bins=EDGES, density=True)
    return [float(value) for value in found]


def pca_figure(seen: Beside, vectors: Vectors, about: str) -> Figure:
    """The residual at places of explore text on its first two principal components, those where the unit is high apart, and
    the three directions from the mean."""
    rng = np.random.default_rng(0)
    x = seen.residual - seen.residual.mean(dim=0)
    plane = _plane(x)
    high = seen.activation > (seen.activation.max() + seen.activation.median()) / 2
    share = float((x @ plane).square().sum() / x.square().sum())
    series = []
    for name, mask in (("where it is low", ~high), ("where it is high", high)):
        rows = np.flatnonzero(mask.numpy())
        rows = rng.choice(rows, min(DRAWN, len(rows)), replace=False)
        points = (x[torch.from_numpy(rows)] @ plane).numpy()
        series.append(Series(f"{vectors.unit.address}: {name}", points[:, 0].tolist(), points[:, 1].tolist(), joined=False))  # fmt: skip
    long, own = float((x @ plane).norm(dim=1).quantile(0.9)), vectors.unit.index
    for name, vector in ((about, vectors.direction), ("read vector", vectors.reads[own]), ("write vector", vectors.writes[own])):  # fmt: skip
        end = (vector @ plane * long).tolist()
        series.append(Series(f"{name} ({float((vector @ plane).norm()):.2f} of it in this plane)", [0.0, end[0]], [0.0, end[1]]))  # fmt: skip
    notes = (f"the plane holds {share:.0%} of the variance; lines are as long as their share of it",)
    return curve("pca", series, Axes("The residual where it is read", "first component", "second component", "", notes))


def _plane(x: Tensor) -> Tensor:
    """(d_model, 2) the two directions in which places (n, d_model) vary most, by subspace iteration."""
    covariance = x.T @ x
    found = torch.randn(x.shape[1], 4, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        found, _ = torch.linalg.qr(covariance @ found)
    values, turned = torch.linalg.eigh(found.T @ covariance @ found)
    return (found @ turned)[:, values.argsort(descending=True)[:2]]
