"""A circuit of nodes drawn: its members, and what flows between them by edge attribution."""

from collections.abc import Collection

from neuronaut.tools.circuits.edges import edge_scores
from neuronaut.tools.circuits.nodes import NodeRuns
from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.drawn.graphs import Arrow, Node
from neuronaut.tools.drawn.svg import Axes
from neuronaut.tools.figures import Figure, graph

MIN_SHARE = 0.02  # of the gap, below which an arrow is left out
MOST_ARROWS = 60
N_PROMPTS = 16
EMBED, LOGITS = "embed", "logits"


def circuit_graph(runs: NodeRuns, members: Collection[str]) -> Figure:
    """The members between embedding and logits. An arrow's weight is the share of the clean-corrupted gap that is lost when
    the receiver alone sees what the sender carries in corrupted prompts (EAP-IG, an estimate); queries, keys and values of a
    head together."""
    wires = Wires.of(runs.target.spec)
    prompts = runs.prompts.select(range(min(N_PROMPTS, len(runs.prompts))))
    scores = edge_scores(runs.target, prompts).numpy()
    kept = [EMBED, *(name for name in wires.senders if name in members)]
    weights: dict[tuple[str, str], float] = {}
    for receiver, row in zip(wires.receivers, scores, strict=True):
        end = receiver.partition(".")[0]
        if end != LOGITS and end not in members:
            continue
        for sender in kept:
            weights[sender, end] = weights.get((sender, end), 0.0) - float(row[wires.senders.index(sender)]) / runs.gap
    strongest = sorted(weights, key=lambda ends: -abs(weights[ends]))[:MOST_ARROWS]
    arrows = [Arrow(*ends, weights[ends]) for ends in strongest if abs(weights[ends]) >= MIN_SHARE]
    nodes = [Node(name, _layer(name)) for name in kept]
    axes = Axes(prompts.name, unit="share of the gap", notes=(f"arrows below {MIN_SHARE:g} of the gap are left out",))
    return graph("circuit", [*nodes, Node(LOGITS, runs.target.spec.n_layers - 0.25)], arrows, axes)


def _layer(name: str) -> float:
    """Where a node stands: an MLP half a layer above its heads."""
    if name == EMBED:
        return -1.0
    return int(name[3:]) + 0.5 if name.startswith("mlp") else float(name[1:].partition("H")[0])
