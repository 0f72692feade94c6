"""Automatic circuit discovery: edges are taken out one after another while the prediction stays what it is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronaut.tools.circuits.bench import EdgeBench
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tasks.base import TaskPrompts

MOST_AT_ONCE = 32  # removals of one receiver that are run together


@dataclass(frozen=True)
class Acdc:
    """The circuit that is left.

    kept: (n_receivers, n_senders) bool, the edges on a path from "embed" to "logits". divergence: mean KL(model ‖ circuit),
    nats. forwards: what it cost. complete: False where the budget was spent before every edge was tried; edges that were not
    tried are kept. tried: edges that were.
    """

    kept: Tensor
    divergence: float
    forwards: float
    complete: bool
    tried: int


class Pruning:
    """A circuit in the making: which edges are cut, and how far the prediction is from the model's."""

    def __init__(self, bench: EdgeBench) -> None:
        self.bench, self.wires = bench, bench.wires
        self.cut = torch.zeros_like(self.wires.possible)
        self._model = bench.logits(self.cut[None])[0].double().log_softmax(-1)
        self.divergence = 0.0
        self.tried = 0

    def divergences(self, cuts: Tensor, layer: int) -> list[float]:
        """Mean over prompts of KL(model ‖ circuit) with each set of edges cut; see EdgeBench.logits."""
        found = self.bench.logits(cuts, layer).double().log_softmax(-1)
        return [float(one) for one in (self._model.exp() * (self._model - found)).sum(-1).mean(-1)]

    def leads(self, receiver: int) -> bool:
        """Whether anything that a receiver reads can still be seen in the logits."""
        left = self.wires.possible & ~self.cut
        left[receiver] = self.wires.possible[receiver]
        return bool(self.wires.connected(left)[receiver].any())

    def cut_off(self, receiver: int) -> None:
        """Cuts all edges into a receiver that nothing follows from: the logits stay what they are."""
        self.tried += int(self.wires.possible[receiver].sum())
        self.cut[receiver] = self.wires.possible[receiver]

    def advance(self, receiver: int, senders: list[int], threshold: float) -> tuple[int, bool]:
        """Cuts the edges from these senders one after another up to the first that is kept; how many were tried, and whether
        all of them were cut."""
        cuts = self.cut.repeat(len(senders), 1, 1)
        for at, sender in enumerate(senders):
            cuts[at:, receiver, sender] = True
        for at, divergence in enumerate(self.divergences(cuts, self.wires.layers[receiver])):
            self.tried += 1
            if divergence - self.divergence >= threshold:
                return at + 1, False
            self.cut, self.divergence = cuts[at], divergence
        return len(senders), True


def acdc(target: TargetModel, prompts: TaskPrompts, *, threshold: float, budget: float) -> Acdc:
    """What is left of a model when edges are taken out, from the logits backwards and later senders first, each if the
    divergence rises by less than `threshold` (nats) when it carries the corrupted run.

    The result is that of trying one edge at a time; removals that follow each other are run together, and only the layers
    from the receiver on. budget: forward passes, beyond which no more edges are tried.
    Refuses a threshold or budget that is not above 0.
    Source: Conmy et al. 2023, arXiv:2304.14997, algorithm 1.
    """
    if threshold <= 0 or budget <= 0:
        raise ToolRefused(
            f"threshold {threshold} and budget {budget} must be above 0: with 0 no edge would be taken out"
        )
    before = target.forwards
    pruning = Pruning(EdgeBench(target, prompts))
    wires, complete = pruning.wires, True
    for receiver in reversed(range(len(wires.receivers))):
        if not pruning.leads(receiver):
            pruning.cut_off(receiver)
            continue
        left, width = list(reversed(range(wires.earlier[receiver]))), 4
        share = max(1, wires.n_layers - wires.layers[receiver]) / wires.n_layers
        while left and complete:
            affordable = max(0, int((budget - (target.forwards - before)) / (share * len(prompts))))
            complete = affordable > 0
            if complete:
                tried, all_cut = pruning.advance(receiver, left[: min(width, affordable)], threshold)
                left, width = left[tried:], min(2 * width, MOST_AT_ONCE) if all_cut else max(1, tried)
        if not complete:
            break
    kept = wires.connected(wires.possible & ~pruning.cut)
    (divergence,) = pruning.divergences((wires.possible & ~kept)[None], 0)
    return Acdc(kept, divergence, target.forwards - before, complete, pruning.tried)
