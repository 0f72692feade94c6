"""Circuits of nodes: which heads and MLPs carry a task when all others carry what they carry on corrupted prompts.

Source: Wang et al. 2022, arXiv:2211.00593 (knock-out by mean); Lan et al. 2024, arXiv:2311.04131 (iterative pruning).
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import tokens_at_once
from neuronaut.tools.targets.base import Edit, ModelSpec, Site, TargetModel
from neuronaut.tools.tasks.base import TaskPrompts

Ablation = Literal["resample", "mean"]
Mask = NDArray[np.bool_]  # (n_nodes,) in the order of `nodes_of`
Array = NDArray[np.float64]

_NAME = re.compile(r"L(\d+)H(\d+)|mlp(\d+)")


class Node(NamedTuple):
    """A head, or a whole MLP (head None)."""

    layer: int
    head: int | None

    def __str__(self) -> str:
        return f"mlp{self.layer}" if self.head is None else f"L{self.layer}H{self.head}"


def nodes_of(spec: ModelSpec) -> tuple[Node, ...]:
    """All nodes, in the order in which they write: of each layer its heads, then its MLP."""
    indices = [*range(spec.n_heads), None]
    return tuple(Node(layer, index) for layer in range(spec.n_layers) for index in indices)


def mask_of(spec: ModelSpec, members: Collection[str]) -> Mask:
    """(n_nodes,) True at the members. Refuses names that mean no node of the model."""
    nodes = {str(node): at for at, node in enumerate(nodes_of(spec))}
    for name in members:
        if name not in nodes:
            form = "" if _NAME.fullmatch(name) else "; write a head as L3H1 and an MLP as mlp3"
            raise ToolRefused(
                f"{name!r} is no node of {spec.name}, which has layers 0 to {spec.n_layers - 1} of {spec.n_heads} heads and an "
                f"MLP each{form}"
            )
    mask = np.zeros(len(nodes), dtype=bool)
    mask[[nodes[name] for name in members]] = True
    return mask


def members_of(spec: ModelSpec, mask: Mask) -> tuple[str, ...]:
    """The names of the nodes of a mask, in order."""
    return tuple(str(node) for node, is_in in zip(nodes_of(spec), mask, strict=True) if is_in)


@dataclass
class NodeRuns:
    """Runs of a task's clean prompts in which some nodes carry what they carry in corrupted ones.

    how: "resample" is the value of the corrupted twin at the same place, "mean" the mean over all corrupted prompts.
    """

    target: TargetModel
    prompts: TaskPrompts
    how: Ablation = "resample"

    @cached_property
    def whole(self) -> Mask:
        """(n_nodes,) all of them."""
        return np.ones(len(nodes_of(self.target.spec)), dtype=bool)

    @cached_property
    def clean(self) -> Array:
        """(n_prompts,) scores of the plain model."""
        return self.trail(self.whole).scores

    @cached_property
    def corrupted(self) -> Array:
        """(n_prompts,) scores of the plain model on the corrupted prompts, for the clean answers."""
        parts = [
            self.prompts.select(rows.numpy()).score(_logits(self.target, self.prompts.corrupted[rows], []))
            for rows in self._rows()
        ]
        return np.asarray(torch.cat(parts).numpy())

    @property
    def gap(self) -> float:
        """Mean clean less corrupted score, nats."""
        return float((self.clean - self.corrupted).mean())

    def share(self, scores: Array) -> float:
        """The share of the gap that is left; 1 is the plain model, 0 the corrupted prompts. scores: (n_prompts,)."""
        return float((scores - self.corrupted).mean()) / self.gap

    def scores(self, circuits: Sequence[Mask]) -> Array:
        """(n_circuits, n_prompts) scores of the clean prompts when only the nodes of each circuit carry what they carry
        there, and all others what they carry in corrupted prompts."""
        n, found = len(self.prompts), np.empty((len(circuits), len(self.prompts)))
        together = tokens_at_once(self.target) // (n * self.prompts.clean.shape[1])
        if together < 2:
            for number, circuit in enumerate(circuits):
                found[number] = self.trail(circuit).scores
            return found
        for first in range(0, len(circuits), together):
            part = np.stack(circuits[first : first + together])
            rows = torch.arange(n).repeat(len(part))
            kept = torch.from_numpy(part).repeat_interleave(n, dim=0)
            logits = _logits(self.target, self.prompts.clean[rows], self._edits(kept, rows, 0))
            scores = self.prompts.select(rows.numpy()).score(logits)
            found[first : first + len(part)] = scores.reshape(len(part), n).numpy()
        return found

    def trail(self, circuit: Mask, before: "Trail | None" = None) -> "Trail":
        """One circuit. before: one that was run; what the two share, from the first layer on, is not run again."""
        width, n_layers = self.target.spec.n_heads + 1, self.target.spec.n_layers
        first = 0 if before is None else before.agrees(circuit, width)
        kept = torch.from_numpy(circuit)[None].expand(len(self.prompts), -1)
        scores, residuals = [], []
        for rows in self._rows():
            read: dict[Site, Tensor] = {Site("resid_pre", layer): torch.empty(0) for layer in range(first, n_layers)}
            start = None if before is None or not first else (first, before.residuals[rows, first])
            edits = self._edits(kept[rows], rows, first)
            logits = _logits(self.target, self.prompts.clean[rows], edits, start, read)
            scores.append(self.prompts.select(rows.numpy()).score(logits))
            residuals.append(torch.stack(list(read.values()), dim=1))
        found = torch.cat(residuals)
        if before is not None and first:
            found = torch.cat([before.residuals[:, :first], found], dim=1)
        return Trail(circuit, found, np.asarray(torch.cat(scores).numpy()))

    def _rows(self) -> Iterator[Tensor]:
        """Prompt numbers of each batch."""
        size = max(1, tokens_at_once(self.target) // self.prompts.clean.shape[1])
        yield from torch.split(torch.arange(len(self.prompts)), size)

    @cached_property
    def _instead(self) -> dict[Site, Tensor]:
        """What takes the place of each head and MLP: (n_prompts, pos, …), or one row of means."""
        spec = self.target.spec
        sites = [Site(name, layer) for layer in range(spec.n_layers) for name in ("heads", "mlp_out")]
        parts = [self.target.run(self.prompts.corrupted[rows], read=sites).read for rows in self._rows()]
        found = {site: torch.cat([part[site] for part in parts]) for site in sites}
        return found if self.how == "resample" else {site: x.mean(0, keepdim=True) for site, x in found.items()}

    def _edits(self, kept: Tensor, rows: Tensor, start: int) -> list[Edit]:
        """kept: (n_rows, n_nodes) bool. rows: (n_rows,) which prompt each is. Two edits a site: scaled, then added to."""
        spec, edits = self.target.spec, []
        by_layer = kept.reshape(len(kept), spec.n_layers, spec.n_heads + 1)
        for layer in range(start, spec.n_layers):
            heads, mlp = by_layer[:, layer, None, :-1, None], by_layer[:, layer, None, -1:]
            for site, keep in ((Site("heads", layer), heads), (Site("mlp_out", layer), mlp)):
                if bool(keep.all()):
                    continue
                other = self._instead[site]
                value = other[rows] if len(other) > 1 else other
                edits += [Edit(site, "scale", keep.float()), Edit(site, "add", value * (~keep).float())]
        return edits


class Trail(NamedTuple):
    """A circuit that was run. residuals: (n_prompts, n_layers, pos, d_model) before each layer. scores: (n_prompts,)."""

    circuit: Mask
    residuals: Tensor
    scores: Array

    def agrees(self, circuit: Mask, width: int) -> int:
        """The first layer in which another circuit differs; at least 0, at most the last layer."""
        differs = (self.circuit != circuit).reshape(-1, width).any(axis=1)
        return int(differs.argmax()) if differs.any() else len(differs) - 1


def _logits(
    target: TargetModel,
    ids: Tensor,
    edits: Sequence[Edit],
    start: tuple[int, Tensor] | None = None,
    read: dict[Site, Tensor] | None = None,
) -> Tensor:
    """(n, d_vocab) at the last position. read: filled with the activations at its sites."""
    run = target.run(ids, read=list(read or ()), edits=edits, start=start, logits=True)
    assert run.logits is not None
    if read is not None:
        read.update(run.read)
    return run.logits[:, -1]
