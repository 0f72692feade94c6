"""A circuit of nodes drawn: its members, and what flows between them by edge attribution."""

from collections.abc import Collection

import torch
from torch import Tensor

from neuronaut.tools.circuits.edges import edge_scores
from neuronaut.tools.circuits.nodes import NodeRuns, component_of
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
    head together.

    Nodes by role: each head or MLP is drawn once, with the roles at which it is a member ("L4H2@end"). What it writes, and
    what its queries or its MLP read, counts at these alone; keys and values are read at all positions.
    """
    wires = Wires.of(runs.target.spec)
    prompts = runs.prompts.select(range(min(N_PROMPTS, len(runs.prompts))))
    lost = -edge_scores(runs.target, prompts, by_position=True) / runs.gap
    everywhere = torch.ones(lost.shape[2], dtype=torch.bool)
    roles = _roles([EMBED, LOGITS, *members])
    places = {name: _places(runs, at) if at else everywhere for name, at in roles.items()}
    label = {name: f"{name}@{','.join(at)}" if at else name for name, at in roles.items()}
    kept = [name for name in wires.senders if name in places]
    weights: dict[tuple[str, str], Tensor] = {}
    for receiver, row in zip(wires.receivers, lost, strict=True):
        end, _, part = receiver.partition(".")
        if end in places:
            read = everywhere if part in ("k", "v") else places[end]
            for sender in kept:
                flow = row[wires.senders.index(sender)] * (read & places[sender])
                weights[sender, end] = weights.get((sender, end), 0.0) + flow
    strongest = sorted(weights, key=lambda ends: -abs(float(weights[ends].sum())))[:MOST_ARROWS]
    arrows = [
        Arrow(label[sender], label[end], float(flow.sum()), _by_role(runs, flow, roles[sender]))
        for (sender, end), flow in ((ends, weights[ends]) for ends in strongest)
        if abs(float(flow.sum())) >= MIN_SHARE
    ]
    nodes = [*(Node(label[name], _layer(name)) for name in kept), Node(LOGITS, runs.target.spec.n_layers - 0.25)]
    axes = Axes(prompts.name, unit="share of the gap", notes=(f"arrows below {MIN_SHARE:g} of the gap are left out",))
    return graph("circuit", nodes, arrows, axes)


def _roles(members: Collection[str]) -> dict[str, list[str]]:
    """The roles at which each head or MLP is a member; none where it is one at all positions."""
    found: dict[str, list[str]] = {}
    for name in members:
        roles = found.setdefault(component_of(name), [])
        if "@" in name:
            roles.append(name.partition("@")[2])
    return found


def _places(runs: NodeRuns, roles: Collection[str]) -> Tensor:
    """(pos,) True where one of the roles stands."""
    return torch.isin(runs.standing, torch.tensor([runs.roles.index(role) for role in roles]))


def _by_role(runs: NodeRuns, flow: Tensor, roles: Collection[str]) -> str:
    """What of an arrow leaves each of several roles of its sender. flow: (pos,)."""
    if len(roles) < 2:
        return ""
    return ", ".join(f"{role} {float(flow[_places(runs, [role])].sum()):+.2f}" for role in roles)


def _layer(name: str) -> float:
    """Where a node stands: an MLP half a layer above its heads."""
    if name == EMBED:
        return -1.0
    return int(name[3:]) + 0.5 if name.startswith("mlp") else float(name[1:].partition("H")[0])
