"""The clean run of a task's prompts with edges cut: what is the same for many sets of cuts is run once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, assert_never

import torch
from torch import Tensor

from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.targets.base import EdgeStart, Site, TargetModel
from neuronaut.tools.tasks.base import TaskPrompts

Instead = Literal["corrupted", "mean", "zero"]
BYTES = 256 << 20  # of what senders write and receivers read in the rows that are run together


@dataclass(frozen=True)
class EdgeBench:
    """A target on prompts, and what cut edges carry: what the sender writes on the prompt's corrupted twin, its mean over the
    corrupted prompts at each position, or nothing."""

    target: TargetModel
    prompts: TaskPrompts
    instead: Instead = "corrupted"

    @cached_property
    def wires(self) -> Wires:
        """Senders and receivers of the target."""
        return Wires.of(self.target.spec)

    @cached_property
    def clean(self) -> Tensor:
        """(n, n_senders, pos, d_model) what senders write on the clean prompts."""
        return self._written(self.prompts.clean)

    @cached_property
    def other(self) -> Tensor:
        """(n, n_senders, pos, d_model) what cut edges carry."""
        match self.instead:
            case "zero":
                return torch.zeros_like(self.clean)
            case "corrupted":
                return self._written(self.prompts.corrupted)
            case "mean":
                return self._written(self.prompts.corrupted).mean(dim=0, keepdim=True).expand_as(self.clean)
            case _ as never:
                assert_never(never)

    def _written(self, ids: Tensor) -> Tensor:
        return torch.cat([self.target.senders(ids[rows]) for rows in self.batches(len(ids))])

    @cached_property
    def _residuals(self) -> list[Tensor]:
        """(n, pos, d_model) before each layer and before the last norm."""
        n_layers = self.target.spec.n_layers
        sites = [Site("resid_pre", layer) for layer in range(n_layers)] + [Site("resid_post", n_layers - 1)]
        parts = [self.target.run(self.prompts.clean[rows], read=sites).read for rows in self.batches(len(self.prompts))]
        return [torch.cat([part[site] for part in parts]) for site in sites]

    def batches(self, n_rows: int) -> Iterator[slice]:
        """Rows that fit into memory together."""
        wires, spec = self.wires, self.target.spec
        width = 2 * len(wires.senders) + len(wires.receivers)
        size = max(1, BYTES // (4 * width * self.prompts.clean.shape[1] * spec.d_model))
        for at in range(0, n_rows, size):
            yield slice(at, min(at + size, n_rows))

    def logits(self, cuts: Tensor, layer: int = 0) -> Tensor:
        """(n_cuts, n, d_vocab) at the last position, with each of the sets of edges cut, (n_cuts, n_receivers, n_senders)
        bool. layer: no edge into an earlier layer is cut (n_layers: only edges into the logits are)."""
        n, parts = len(self.prompts), []
        sets, rows = (
            found.flatten() for found in torch.meshgrid(torch.arange(len(cuts)), torch.arange(n), indexing="ij")
        )
        for batch in self.batches(len(rows)):
            at = rows[batch]
            start = None
            if layer > 0:
                start = EdgeStart(layer, self._residuals[layer][at], self.clean[at, : self.wires.heads(layer).start])
            cut = cuts[:1] if len(cuts) == 1 else cuts[sets[batch]]
            parts.append(self.target.run_edges(self.prompts.clean[at], self.other[at], cut, start=start)[:, 0])
        found = torch.cat(parts)
        if not bool(torch.isfinite(found).all()):
            raise ToolFailed("the model with edges cut gives logits that are not finite")
        return found.reshape(len(cuts), n, -1)

    def scores(self, cuts: Tensor, layer: int = 0) -> Tensor:
        """(n_cuts, n) float64 scores of the prompts, as `logits`."""
        return torch.stack([self.prompts.score(found) for found in self.logits(cuts, layer)])
