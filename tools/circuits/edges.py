"""How much each edge of a model matters to a task, and circuits made of the edges that matter most."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from neuronaut.tools.circuits.bench import EdgeBench, Instead
from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.tasks.base import TaskPrompts

Method = Literal["eap", "eap_ig"]
STEPS = 5  # Hanna et al. 2024, section 4: more change little
CUTS = 64  # sets of edges cut in one call


def edge_scores(
    target: TargetModel,
    prompts: TaskPrompts,
    *,
    method: Method = "eap_ig",
    steps: int = STEPS,
    by_position: bool = False,
) -> Tensor:
    """(n_receivers, n_senders) float64 estimate of how the mean score changes when each edge alone carries the corrupted run;
    by_position: (n_receivers, n_senders, pos), of each position at which it is read alone.

    Nats; below 0: the edge helps. Null: 0, as where there is no edge. `eap`: to first order at the clean run; `eap_ig`: the
    gradient is averaged over `steps` runs whose input embeddings lie between corrupted and clean.
    Source: Syed et al. 2023, arXiv:2310.10348; Hanna et al. 2024, arXiv:2403.17806.
    """
    if steps < 1:
        raise ToolRefused(f"{steps} steps average no gradient: give at least 1")
    bench = EdgeBench(target, prompts)
    possible = bench.wires.possible
    shape = (*possible.shape, prompts.clean.shape[1]) if by_position else possible.shape
    found = torch.zeros(shape, dtype=torch.float64)
    for rows in bench.batches(len(prompts)):
        part = prompts.select(range(rows.start, rows.stop))
        clean, corrupted = target.senders(part.clean), target.senders(part.corrupted)
        gradients = _mean_gradients(target, part, clean[:, 0], corrupted[:, 0], steps if method == "eap_ig" else 0)
        summed = "bspd,brpd->rsp" if by_position else "bspd,brpd->rs"
        found += torch.einsum(summed, corrupted - clean, gradients).double()
    return torch.where(possible[..., None] if by_position else possible, found / len(prompts), 0.0)


def _mean_gradients(target: TargetModel, prompts: TaskPrompts, clean: Tensor, corrupted: Tensor, steps: int) -> Tensor:
    """(batch, n_receivers, pos, d_model) mean over the middles of `steps` equal parts of the way from the corrupted to the
    clean embeddings, both (batch, pos, d_model); 0 steps: of the clean run."""

    def score(logits: Tensor) -> Tensor:
        return prompts.score(logits[:, -1])

    if steps == 0:
        return target.edge_gradients(prompts.clean, score).gradients
    total: Tensor | None = None
    for step in range(steps):
        embedded = corrupted + (step + 0.5) / steps * (clean - corrupted)
        edit = Edit(Site("resid_pre", 0), "set", embedded)
        gradients = target.edge_gradients(prompts.clean, score, edits=[edit]).gradients
        total = gradients if total is None else total + gradients
    assert total is not None
    return total / steps


def exact_edge_scores(target: TargetModel, prompts: TaskPrompts, edges: Tensor) -> Tensor:
    """(n_receivers, n_senders) float64 change of the mean score when each of the edges (a bool mask) alone carries the
    corrupted run; 0 elsewhere. One run for each edge and prompt, from the layer of the receiver on."""
    bench = EdgeBench(target, prompts)
    found = torch.zeros(edges.shape, dtype=torch.float64)
    clean = float(bench.scores(torch.zeros_like(edges)[None]).mean())
    for layer, at in _by_layer(bench.wires, edges):
        for chunk in (at[first : first + CUTS] for first in range(0, len(at), CUTS)):
            cuts = torch.zeros(len(chunk), *edges.shape, dtype=torch.bool)
            cuts[torch.arange(len(chunk)), chunk[:, 0], chunk[:, 1]] = True
            found[chunk[:, 0], chunk[:, 1]] = bench.scores(cuts, layer).mean(dim=1) - clean
    return found


def _by_layer(wires: Wires, edges: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Layer and (n, 2) receivers and senders of the edges into it. Refuses edges that do not exist."""
    if bool((edges & ~wires.possible).any()):
        raise ToolRefused(
            f"{wires.edges(edges & ~wires.possible)[0]} is no edge: the receiver reads before the sender writes"
        )
    layers = torch.tensor(wires.layers)
    for layer in range(wires.n_layers + 1):
        at = (edges & (layers == layer)[:, None]).nonzero()
        if len(at):
            yield layer, at


def top_edges(wires: Wires, scores: Tensor, n: int) -> Tensor:
    """(n_receivers, n_senders) bool: the edges of largest size of score that lie on a path from "embed" to "logits", at most
    `n`, of as many as can be taken in falling order. Empty where no path is that short."""
    order = torch.where(wires.possible, scores.abs(), -1.0).flatten().argsort(descending=True, stable=True)
    n_edges = int(wires.possible.sum())

    def taken(count: int) -> Tensor:
        mask = torch.zeros(wires.possible.numel(), dtype=torch.bool)
        mask[order[:count]] = True
        return wires.connected(mask.view(wires.possible.shape))

    low, high = 0, n_edges
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(taken(middle).sum()) <= n else (low, middle - 1)
    return taken(low)


def circuit_scores(
    target: TargetModel, prompts: TaskPrompts, kept: Tensor, *, instead: Instead = "corrupted"
) -> Tensor:
    """(n,) float64 score of each clean prompt, in nats, in the model in which all edges but the kept ones (n_receivers,
    n_senders) carry the corrupted run (its mean over prompts; nothing).

    With all kept it is that of the model, with none that of the corrupted prompt.
    """
    bench = EdgeBench(target, prompts, instead)
    _refuse_strange(bench.wires, kept)
    return bench.scores((bench.wires.possible & ~kept)[None])[0]


def circuit_logits(
    target: TargetModel, prompts: TaskPrompts, kept: Tensor, *, instead: Instead = "corrupted"
) -> Tensor:
    """(n, d_vocab) logits at the last position, as `circuit_scores`."""
    bench = EdgeBench(target, prompts, instead)
    _refuse_strange(bench.wires, kept)
    return bench.logits((bench.wires.possible & ~kept)[None])[0]


def _refuse_strange(wires: Wires, kept: Tensor) -> None:
    if kept.dtype != torch.bool or kept.shape != wires.possible.shape:
        raise ToolRefused(f"kept {tuple(kept.shape)} of {kept.dtype} is not {tuple(wires.possible.shape)} of bool")
