"""A direction of the residual stream beside the vectors of the neurons that could write or read it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.sites import neuron_sites, read_vectors_at, unit_at, write_vectors_at


def nearest_units(target: TargetModel, layer: int, direction: NDArray[np.float64], k: int) -> dict[str, Any]:
    """The k neurons whose write vectors (up to the layer) or read vectors (behind it) lie most along a direction after a layer.

    cosine: a random vector has about 0 ± 1/√d_model. z: among the neurons of its own layer.
    """
    along = torch.from_numpy(direction).float()
    along = along / along.norm().clamp_min(1e-12)
    rows: list[dict[str, Any]] = []
    for at in range(target.spec.n_layers):
        for site in neuron_sites(target.spec, at):
            vectors = (write_vectors_at if at <= layer else read_vectors_at)(target, site).float()
            cosines = (vectors @ along) / vectors.norm(dim=1).clamp_min(1e-12)
            z = (cosines - cosines.mean()) / cosines.std().clamp_min(1e-12)
            for index in torch.topk(cosines.abs(), min(k, len(cosines))).indices.tolist():
                row = {"unit": unit_at(site, index).address, "vector": "writes" if at <= layer else "reads"}
                rows.append(row | {"cosine": round(float(cosines[index]), 4), "z": round(float(z[index]), 2)})
    rows.sort(key=lambda row: -abs(row["cosine"]))
    return {"by_chance": round(target.spec.d_model**-0.5, 4), "neurons": rows[:k]}
