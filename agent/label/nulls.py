"""The planted null units of a batch: models in which some neurons have real values at places that mean nothing."""

from collections.abc import Sequence

import numpy as np

from neuronaut.memory.items import Item
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.trials.null_units import NULL_KINDS, null_of
from neuronaut.tools.units import Unit


def places_of(items: Sequence[Item], d_mlp: int) -> dict[str, Unit]:
    """Item id to the neuron in whose place its null unit is planted: the one that has the values, of a feature any of the
    layer, no two the same. items: a whole block, in order."""
    taken: set[Unit] = set()
    found = {}
    for item in sorted(items, key=lambda one: (Unit.parse(one.address).kind != "neuron", one.rank)):
        unit = Unit.parse(item.address)
        index = unit.index if unit.kind == "neuron" else int(np.random.default_rng(item.rank).integers(d_mlp))
        while (place := Unit("neuron", unit.layer, index % d_mlp, expert=unit.expert)) in taken:
            index += 1
        taken.add(place)
        found[item.id] = place
    return found


def planted_block(real: BatchContext, items: Sequence[Item], seed: int) -> tuple[BatchContext, dict[str, Unit]]:
    """A context whose model has the null units of a whole block planted, and the place of each by item id.

    The whole block is planted whichever of its items are worked on, so that each finds the same model.
    """
    places = places_of(items, real.target.spec.d_mlp)
    plants = {}
    for item in items:
        kind = next(kind for kind in NULL_KINDS if kind == item.null_kind)
        plants[places[item.id]] = null_of(real, Unit.parse(item.address), kind, seed * 10_000 + item.rank)
    return real.under(Overlay(real.target, plants), tuple(plants)), places
