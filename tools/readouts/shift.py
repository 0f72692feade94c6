"""Where training moved the residual stream: along the direction of a head that was frozen, along a unit's vectors, or elsewhere?"""

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.readouts.directions import Vectors
from neuronaut.tools.readouts.heads import check_head
from neuronaut.tools.readouts.moved import random_directions
from neuronaut.tools.readouts.places import Beside, beside
from neuronaut.tools.readouts.read_out import EXPLORED, Name, neuron_of
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_interval, percentile_of, ratio_samples, summed_by
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]
N_RANDOM = 1000
SAME = 1e-7  # of the length of the residual: what training moved by less was not moved


class ReadoutShiftArgs(ToolArgs):
    """Which neuron, which head, and the model before the training (registered with --other). The target is the model after it."""

    example: ClassVar = {"unit": "8.481", "head": "NAME", "other": "BASE"}
    unit: str
    head: Name
    other: str = Field(max_length=64)
    seed: int = Field(default=0, ge=0)


class Along(NamedTuple):
    """How the shift lies along a direction: share of its mean squared length, z of that against random directions, and the
    correlation of the shift along it with the neuron before the training."""

    share: float
    interval: tuple[float, float]
    z: float
    mean: float
    with_unit: float


@tool("readout_shift")
def readout_shift(context: ToolContext, args: ReadoutShiftArgs) -> ToolResult:
    """How far training with a frozen head moved the residual stream where the head reads, and along what: the head's direction,
    the neuron's read vector, its write vector.

    share_*: of the mean squared length of the shift (after less before, on the same explore text), 0 to 1; null is the mean
    share of 1000 random directions, the percentile is among these; z is in their standard deviations. with_unit: correlation of
    the shift along the direction with the neuron's activation before the training. changed: how far the neuron's own vectors
    turned (1 − cosine), with the percentile among the neurons of its layer.
    Refuses: a head of another model; two models of other widths, layers or tokenizers, and identical ones.
    """
    after, before = context.target, context.registered.other(args.other).target
    unit, head = neuron_of(context, args.unit), context.registered.head(args.head)
    check_head(head, after.spec, after.fingerprint())
    _check_pair(after, before, args.other)
    tokens = context.sample("explore", EXPLORED)
    now, then = (beside(one, head.site, unit, tokens) for one in (after, before))
    shift = now.residual - then.residual
    length = float(shift.square().sum(dim=1).mean().sqrt())
    if length <= SAME * float(then.residual.square().sum(dim=1).mean().sqrt()):
        raise ToolRefused(
            f"the residual at {head.site} is the same in {args.other!r} and after the training: nothing was moved there"
        )
    vectors = Vectors.of(after, unit, head.direction(after, now.residual))
    named = {"head": vectors.direction, "read": vectors.reads[unit.index], "write": vectors.writes[unit.index]}
    null = _shares(shift, random_directions(N_RANDOM, shift.shape[1], args.seed))
    found = {name: _along(shift, one, then, null, args.seed) for name, one in named.items()}
    measured = [_measured(name, one, null, then) for name, one in found.items()]
    payload = {
        "unit": unit.address, "readout": head.about, "before": args.other, "site": str(head.site), "shift": length,
        "residual": float(then.residual.square().sum(dim=1).mean().sqrt()), "random": float(null.mean()),
        "random_95": float(np.quantile(null, 0.95)),
        "along": {name: {"share": one.share, "z": one.z, "mean": one.mean, "with_unit": one.with_unit} for name, one in found.items()},
        "changed": _changed(after, before, unit),
    }  # fmt: skip
    return ToolResult(tuple(measured), payload)


def _check_pair(after: TargetModel, before: TargetModel, name: str) -> None:
    """Refuses models that cannot be compared place by place, and a model with itself."""
    one, other = after.fingerprint(), before.fingerprint()
    same = ("n_layers", "d_model", "d_mlp")
    if differ := [field for field in same if getattr(after.spec, field) != getattr(before.spec, field)]:
        said = ", ".join(f"{field} {getattr(before.spec, field)} and {getattr(after.spec, field)}" for field in differ)
        raise ToolRefused(
            f"{name!r} is another model than {after.spec.name} ({said}): give the one that was trained further"
        )
    if one.tokenizer_sha256 != other.tokenizer_sha256:
        raise ToolRefused(
            f"{name!r} cuts text into other tokens than {after.spec.name}: their residuals cannot be set side by side"
        )
    if one.weights_sha256 == other.weights_sha256:
        raise ToolRefused(f"{name!r} has the same weights as {after.spec.name}: nothing was trained between them")


def _shares(shift: Tensor, directions: Tensor) -> Floats:
    """(n,) share of the mean squared length of the shift along unit vectors (n, d_model)."""
    covariance = (shift.T @ shift).double()
    along = ((directions.double() @ covariance) * directions.double()).sum(dim=1)
    return (along / covariance.trace()).numpy()


def _along(shift: Tensor, direction: Tensor, then: Beside, null: Floats, seed: int) -> Along:
    projected = (shift @ direction).double().numpy()
    along, whole = summed_by(then.documents, np.square(projected), shift.square().sum(dim=1).numpy())
    interval = percentile_interval(ratio_samples(along, whole, seed))
    share = float(along.sum() / whole.sum())
    own = then.activation.double().numpy()
    spread = float(own.std() * projected.std())
    with_unit = float(((own - own.mean()) * (projected - projected.mean())).mean() / spread) if spread > 1e-15 else 0.0
    return Along(share, interval, (share - float(null.mean())) / float(null.std()), float(projected.mean()), with_unit)


def _measured(name: str, one: Along, null: Floats, then: Beside) -> Measurement:
    low, high = one.interval
    return Measurement(
        f"share_{name}", one.share, "share of the shift", len(np.unique(then.documents)), (min(low, one.share), max(high, one.share)),
        float(null.mean()), percentile_of(one.share, null),
    )  # fmt: skip


def _changed(after: TargetModel, before: TargetModel, unit: Unit) -> dict[str, dict[str, float]]:
    """1 − cosine of the unit's vectors before and after, and where that stands among the neurons of the layer."""
    cosine = torch.nn.functional.cosine_similarity
    found = {}
    for name in ("read_vectors", "write_vectors"):
        now, then = (getattr(one, name)(unit.layer, unit.expert) for one in (after, before))
        turned = 1 - cosine(now, then, dim=1)
        own = float(turned[unit.index])
        found[name.removesuffix("_vectors")] = {"turned": own, "percentile": percentile_of(own, turned.float().numpy())}
    return found
