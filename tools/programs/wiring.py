"""The graph of a model: its heads and groups of neurons that matter, and which of them reads which, by interventions."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from neuronaut.tools.programs.coupling import Coupling
from neuronaut.tools.programs.grouping import Wiring, group_neurons
from neuronaut.tools.programs.parts import POSITION, TOKEN, Observed, Part, output_part
from neuronaut.tools.programs.reads import (
    MIN_EFFECT,
    Exchange,
    HeadReads,
    group_effect,
    neurons_reading,
)

SLOTS = ("q", "k", "v", "in", "logits")
TRACE = 0.05  # of the strongest effect on a group of neurons: less is rounding that a steep threshold makes large
FIRES = 0.05  # of a neuron's largest activation

Effects = Mapping[str, float]
"""Of one part on another, by what is read: "q", "k", "v" of a head, "in" of neurons, "logits" of the output."""


@dataclass(frozen=True)
class Graph:
    """parts: those that matter, in the order in which they write, token and position first, the output last. effects: of
    each on each later one, those of parts that do not matter left out."""

    parts: tuple[Part, ...]
    effects: Mapping[tuple[Part, Part], Effects]

    def read_by(self, reader: Part, slot: str) -> list[Part]:
        """The parts that a reader reads there, the strongest first."""
        found = {one: slots.get(slot, 0.0) for (one, to), slots in self.effects.items() if to == reader}
        least = max(MIN_EFFECT, TRACE * max(found.values(), default=0.0) if slot == "in" else 0.0)
        return sorted((one for one in found if found[one] >= least), key=lambda one: -found[one])

    def sources(self, reader: Part) -> set[Part]:
        """All parts that a reader reads."""
        return {one for slot in SLOTS for one in self.read_by(reader, slot)}


def find_graph(observed: Observed, coupling: Coupling, seed: int) -> Graph:
    """The parts and their effects on each other, layer by layer."""
    target, exchange = observed.target, Exchange(observed, seed)
    parts = [TOKEN] + [POSITION] * (observed.positional is not None)
    effects: dict[tuple[Part, Part], Effects] = {}
    for layer in range(target.spec.n_layers):
        heads = [Part(layer, "head", (head,)) for head in coupling.heads[layer]]
        for source in parts if heads else []:
            found = exchange.heads(source, layer, [head.indices[0] for head in heads])
            effects |= {(source, head): _slots(reads) for head, reads in zip(heads, found, strict=True)}
        parts += heads
        groups, read = _groups(exchange, coupling, layer, parts)
        parts += groups
        effects |= read
    output = output_part(target.spec.n_layers)
    effects |= {(source, output): {"logits": exchange.output(source)} for source in parts}
    return _mattering(Graph((*parts, output), effects), output)


def _slots(reads: HeadReads) -> Effects:
    return {"q": reads.queries, "k": reads.keys, "v": reads.values}


def _groups(
    exchange: Exchange, coupling: Coupling, layer: int, sources: list[Part]
) -> tuple[list[Part], dict[tuple[Part, Part], Effects]]:
    """The groups of a layer, and the effects on them."""
    if not coupling.neurons[layer]:
        return [], {}
    target = exchange.target
    usual, writes = exchange.usual_neurons(layer), target.write_vectors(layer)
    exchanged: dict[Part, list[Tensor]] = {source: exchange.neurons(source, layer) for source in sources}
    reading = dict(zip(sources, neurons_reading(usual, list(exchanged.values())), strict=True))
    fires = (usual > FIRES * usual.amax(dim=(0, 1)).clamp_min(1e-6)).flatten(0, 1).numpy()
    wiring = {
        n: Wiring(
            frozenset(one for one in sources if reading[one][n]),
            coupling.readers.get((layer, n), frozenset()),
            fires[:, n],
        )
        for n in range(target.spec.d_mlp)
    }
    groups = group_neurons(layer, wiring)
    effects: dict[tuple[Part, Part], Effects] = {}
    for group in groups:
        rows = list(group.indices)
        for source, after in exchanged.items():
            share = group_effect(usual[..., rows], [one[..., rows] for one in after], writes[rows])
            effects[source, group] = {"in": share}
    return groups, effects


def _mattering(graph: Graph, output: Part) -> Graph:
    """The part of the graph from which the output can be reached."""
    found, left = {output}, [output]
    while left:
        new = graph.sources(left.pop()) - found
        found |= new
        left += new
    kept = {pair: slots for pair, slots in graph.effects.items() if found.issuperset(pair)}
    return Graph(tuple(part for part in graph.parts if part in found), kept)
