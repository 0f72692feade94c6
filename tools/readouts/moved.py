"""How far a read-out moves when a unit is patched, or what the unit reads: beside random directions and the other units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.readouts.heads import Head
from neuronaut.tools.readouts.places import BATCH, Beside, Places, driving_sites, follows
from neuronaut.tools.readouts.rule import MIN_Z, NOTHING
from neuronaut.tools.stats import document_weights, percentile_interval, percentile_of
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.sites import out_of, site_of
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]
N_OTHERS = 40  # units of the layer
N_RANDOM = 40  # directions


@dataclass(frozen=True, eq=False)
class Reader:
    """A read-out and a unit of one model, with what they do on explore text. spread: standard deviation of the read-out
    there; spreads: (d_mlp,) of the layer's activations; reads: (d_mlp, d_model) unit vectors in the residual that drive them;
    driven: (d_mlp,) standard deviation of what drives the MLP along each."""

    target: TargetModel
    head: Head
    unit: Unit
    spread: float
    spreads: Tensor
    reads: Tensor
    driven: Tensor

    @classmethod
    def of(cls, target: TargetModel, head: Head, unit: Unit, seen: Beside) -> "Reader":
        """What is known of both from explore text."""
        reads = read_directions(target, unit)
        told = seen.driving if follows(head.site, unit) else seen.residual
        covariance = torch.cov(told.double().T)
        driven = ((reads.double() @ covariance) * reads.double()).sum(dim=1).clamp(min=0).sqrt().float()
        spread = float(head.values(target, seen.residual).std())
        return cls(target, head, unit, max(spread, 1e-9), seen.layer.std(dim=0), reads, driven)

    @property
    def own(self) -> Site:
        """Where the unit is."""
        return site_of(self.target, self.unit)

    def others(self, seed: int) -> list[int]:
        """Some other units of the layer, those that never change left out."""
        alive = [i for i in range(len(self.spreads)) if i != self.unit.index and float(self.spreads[i]) > 1e-9]
        rng = np.random.default_rng(seed)
        return sorted(int(i) for i in rng.choice(alive, min(N_OTHERS, len(alive)), replace=False))

    def change(self, chosen: Places, edits: list[Edit]) -> Floats:
        """(n,) change of the read-out at the places, in its own standard deviations."""
        (residual,) = chosen.run(self.target, [self.head.site], edits)
        return self.between(chosen, residual)

    def between(self, chosen: Places, residual: Tensor) -> Floats:
        """(n,) the same for a residual (n, d_model) in place of the one that is read."""
        after, before = (self.head.values(self.target, one) for one in (residual, chosen.residual))
        return ((after - before) / self.spread).double().numpy()


def read_directions(target: TargetModel, unit: Unit) -> Tensor:
    """(d_mlp, d_model) unit vectors of the residual along which each neuron of the layer is driven: the gain of the norm before
    the MLP folded in, and the mean that the norm takes out taken out."""
    found = target.read_vectors(unit.layer, unit.expert) * target.mlp_norm_gain(unit.layer)
    found = found - found.mean(dim=1, keepdim=True) if target.spec.norm == "layernorm" else found
    return torch.nn.functional.normalize(found, dim=1)


def random_directions(n: int, d_model: int, seed: int) -> Tensor:
    """(n, d_model) unit vectors."""
    made = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d_model, generator=made), dim=1)


class Moved(NamedTuple):
    """Change of the read-out in its standard deviations, of each document (n,); of other units (n_others, n) and of random
    directions of equal norm (n_random, n)."""

    own: Floats
    others: Floats
    random: Floats


def by_unit(reader: Reader, chosen: Places, seed: int) -> Moved:
    """The unit raised by one of its standard deviations at the place; other units by theirs, random directions by as long a
    vector where the MLP writes."""
    if not follows(reader.head.site, reader.unit):  # nothing that it writes comes there
        nothing = np.zeros(len(chosen))
        return Moved(nothing, nothing[None], nothing[None])
    target, index = reader.target, reader.unit.index
    long = float(reader.spreads[index] * target.write_vector(reader.unit).norm())
    made = long * random_directions(N_RANDOM, target.spec.d_model, seed)
    raised = _raised(reader, chosen, [index, *reader.others(seed)])
    return Moved(raised[0], raised[1:], _added(reader, chosen, out_of(target, reader.own), made, held=False))


def by_inputs(reader: Reader, chosen: Places, seed: int) -> Moved:
    """What drives the MLP pushed along the read vector of the unit by one standard deviation along it, the unit itself held as
    it was; other units and their read vectors alike; random directions pushed as far as that of the unit.

    Where the read-out comes before the unit, the residual that it reads is pushed.
    """
    units = [reader.unit.index, *reader.others(seed)]
    own = reader.driven[units, None] * reader.reads[units]
    made = float(reader.driven[units[0]]) * random_directions(N_RANDOM, reader.target.spec.d_model, seed)
    if follows(reader.head.site, reader.unit):
        site = driving_sites(reader.target, reader.unit.layer)[-1]
        pushed = _added(reader, chosen, site, torch.cat([own, made]), held=True)
    else:
        pushed = np.stack([reader.between(chosen, chosen.residual + one) for one in torch.cat([own, made])])
    return Moved(pushed[0], pushed[1 : len(units)], pushed[len(units) :])


def _together(chosen: Places) -> int:
    """How many patches are made in one run."""
    return max(1, BATCH // chosen.ids.numel())


def _raised(reader: Reader, chosen: Places, indices: list[int]) -> Floats:
    """(n_indices, n) change of the read-out when each neuron alone is raised by its standard deviation."""
    found = []
    for first in range(0, len(indices), k := _together(chosen)):
        part = indices[first : first + k]
        copies = chosen.copies(len(part))
        mask, edits = copies.mask("last"), []
        for at, index in enumerate(part):
            mine = torch.zeros_like(mask)
            mine[at * len(chosen) : (at + 1) * len(chosen)] = mask[: len(chosen)]
            edits.append(Edit(reader.own, "add", float(reader.spreads[index]), index, mine))
        found.append(reader.change(copies, edits).reshape(len(part), -1))
    return np.concatenate(found)


def _added(reader: Reader, chosen: Places, site: Site, vectors: Tensor, *, held: bool) -> Floats:
    """(n_vectors, n) change of the read-out when each vector is added at the place. held: the unit stays as it was."""
    found = []
    for part in torch.split(vectors, _together(chosen)):
        copies = chosen.copies(len(part))
        mask, values = copies.mask("last"), part.repeat_interleave(len(chosen), dim=0)[:, None]
        edits = [Edit(site, "add", values, positions=mask)]
        edits += [Edit(reader.own, "set", copies.activation, reader.unit.index, mask)] if held else []
        found.append(reader.change(copies, edits).reshape(len(part), -1))
    return np.concatenate(found)


def summary(moved: Moved, seed: int) -> dict[str, Any]:
    """What a verdict rests on: the effect with its 95 % interval over documents, its sign taken out; z against random
    directions; percentile among other units. What is told of the unit alone (see `through`) is None."""
    mean = float(moved.own.mean())
    sign = 1.0 if mean >= 0 else -1.0
    samples = document_weights(len(moved.own), seed) @ (sign * moved.own) / len(moved.own)
    low, high = percentile_interval(samples)
    random = float(np.sqrt(np.square(moved.random.mean(axis=1)).mean()))
    others = np.abs(moved.others.mean(axis=1))
    z = abs(mean) / random if random > 1e-9 else 0.0
    return {
        "effect": abs(mean),
        "low": min(low, abs(mean)),
        "high": max(high, abs(mean)),
        "sign": sign,
        "z": z,
        "percentile": percentile_of(abs(mean), others),
        "random": random,
        "others": float(np.median(others)),
        **dict.fromkeys(("share", "share_low", "share_high", "natural_slope")),
    }


def natural(reader: Reader, seen: Beside) -> dict[str, float]:
    """How the read-out goes with the unit where nothing is patched: correlation, and slope in its own unit."""
    said = reader.head.values(reader.target, seen.residual)
    said, true = said - said.mean(), seen.activation - seen.activation.mean()
    whole, own = float(said.norm() * true.norm()), float(true.square().sum())
    product = float(said @ true)
    return {"r": product / whole if whole > 1e-12 else 0.0, "slope": product / own if own > 1e-12 else 0.0}


def through(reader: Reader, told: dict[str, Any], slope: float) -> dict[str, Any]:
    """`summary` of a patched unit, with the share of the natural slope that comes about through the unit, and its interval: 1
    where the unit alone would make the slope steeper."""
    own = reader.spread / max(float(reader.spreads[reader.unit.index]), 1e-12)
    whole = max(own * float(told["effect"]), abs(slope), 1e-12)
    ends = {"share": "effect", "share_low": "low", "share_high": "high"}
    shares = {name: min(1.0, max(0.0, own * float(told[end]) / whole)) for name, end in ends.items()}
    return told | shares | {"natural_slope": slope}


def bets(moved: Moved, seed: int) -> list[float]:
    """1 for each document in which the read-out moves farther, the way that it moves in all, than another unit that was dealt
    to the document moves it, −1 for any other."""
    sign = 1.0 if float(moved.own.mean()) >= 0 else -1.0
    dealt = np.random.default_rng(seed).integers(len(moved.others), size=len(moved.own))
    rival = np.abs(moved.others[dealt, np.arange(len(moved.own))])
    return [1.0 if mine > other else -1.0 for mine, other in zip(sign * moved.own, rival, strict=True)]


def bets_against(all_moved: Sequence[Moved]) -> list[float]:
    """1 for each document in which none moves the read-out by more than NOTHING and MIN_Z times what random directions do there."""
    still = np.ones(len(all_moved[0].own), dtype=bool)
    for moved in all_moved:
        bar = np.maximum(NOTHING, MIN_Z * np.sqrt(np.square(moved.random).mean(axis=0)))
        still &= np.abs(moved.own) < bar
    return [1.0 if one else -1.0 for one in still]
