"""Neurons that serve one variable: those that read the same parts and are read by the same readers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.programs.coupling import Slot
from neuronaut.tools.programs.parts import Part

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Wiring:
    """What a neuron reads, by exchanging it; what reads the neuron, by weights; and where it fires, (places,)."""

    sources: frozenset[Part]
    readers: frozenset[Slot]
    fires: Bools = field(repr=False)


@dataclass
class _Group:
    sources: frozenset[Part]
    readers: set[Slot]
    neurons: set[int]
    fires: Bools  # (places,) of any of its neurons

    def take(self, other: "_Group") -> None:
        self.readers |= other.readers
        self.neurons |= other.neurons
        self.fires = self.fires | other.fires

    def never_with(self, other: "_Group") -> bool:
        return not bool((self.fires & other.fires).any())


def group_neurons(layer: int, wiring: Mapping[int, Wiring]) -> list[Part]:
    """The groups of a layer: neurons with equal sources whose readers overlap.

    Neurons that read less than a group (never seen to fire, always on, or a row of a lookup that does not depend on all)
    join the smallest one that reads all of that and shares a reader, unless both fire at one place. Neurons that nothing
    reads join a lookup of equal sources that is silent wherever they fire: they stand for a label that is not used. Neurons
    that read nothing and fit nowhere are left out, as part of the bias.
    """
    groups: list[_Group] = []
    used = {n: one for n, one in wiring.items() if one.readers}
    for sources in sorted({one.sources for one in used.values()}, key=lambda s: (-len(s), sorted(s))):
        for found in _overlapping(sources, {n: one for n, one in used.items() if one.sources == sources}):
            larger = [group for group in groups if group.sources > sources and group.readers & found.readers]
            fitting = [group for group in larger if not sources or group.never_with(found)]
            if fitting:
                min(fitting, key=lambda group: (len(group.sources), -len(group.readers & found.readers))).take(found)
            elif sources:
                groups.append(found)
    for n, one in wiring.items():
        if not one.readers and one.fires.any():
            alone = _Group(one.sources, set(), {n}, one.fires)
            home = next((g for g in groups if g.sources == one.sources and g.never_with(alone)), None)
            if home is not None:
                home.take(alone)
    return [Part(layer, "neurons", tuple(sorted(group.neurons))) for group in groups]


def _overlapping(sources: frozenset[Part], members: Mapping[int, Wiring]) -> Iterable[_Group]:
    """Groups of neurons connected by readers that they share."""
    found: list[_Group] = []
    for neuron, one in members.items():
        merged = _Group(sources, set(one.readers), {neuron}, one.fires)
        for other in [group for group in found if group.readers & one.readers]:
            merged.take(other)
            found.remove(other)
        found.append(merged)
    return found
