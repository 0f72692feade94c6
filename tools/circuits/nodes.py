"""Circuits of nodes: which heads and MLPs carry a task when all others carry what they carry on corrupted prompts.

A node is a whole head or MLP ("L4H2", "mlp3"), or one of them at one role of the prompt ("L4H2@end", "mlp3@subject"): at the
positions at which that slot stands in every prompt. All positions without a role are one role more, "rest".

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

REST = "rest"  # the role of all positions at which no slot stands in every prompt
_NAME = re.compile(r"(L\d+H\d+|mlp\d+)(@\w+)?")


class Node(NamedTuple):
    """A head, or an MLP (head None); at one role, or at all positions (role "")."""

    layer: int
    head: int | None
    role: str = ""

    def __str__(self) -> str:
        component = f"mlp{self.layer}" if self.head is None else f"L{self.layer}H{self.head}"
        return f"{component}@{self.role}" if self.role else component


def roles_of(prompts: TaskPrompts) -> tuple[str, ...]:
    """The roles of prompts in the order in which they stand, and "rest" where a position has none."""
    roles = dict.fromkeys(role for role in prompts.roles if role)
    return (*roles, REST) if "" in prompts.roles else tuple(roles)


def nodes_of(spec: ModelSpec, roles: Sequence[str] = ()) -> tuple[Node, ...]:
    """All nodes, in the order in which they write: of each layer its heads, then its MLP; each at every role, where given."""
    indices = [*range(spec.n_heads), None]
    return tuple(
        Node(layer, index, role) for layer in range(spec.n_layers) for index in indices for role in roles or [""]
    )


def mask_of(spec: ModelSpec, members: Collection[str], roles: Sequence[str] = ()) -> Mask:
    """(n_nodes,) True at the members; a whole head or MLP among nodes by role is it at every role. Refuses names that mean
    no node of the model, or a role that is not given."""
    nodes: dict[str, list[int]] = {}
    for at, node in enumerate(nodes_of(spec, roles)):
        for name in {str(node), str(node._replace(role=""))}:
            nodes.setdefault(name, []).append(at)
    for name in members:
        if name not in nodes:
            raise ToolRefused(_strange(spec, name, roles, known=component_of(name) in nodes))
    mask = np.zeros(len(nodes_of(spec, roles)), dtype=bool)
    mask[[at for name in members for at in nodes[name]]] = True
    return mask


def _strange(spec: ModelSpec, name: str, roles: Sequence[str], *, known: bool) -> str:
    """Why a name means no node. known: its component exists."""
    if known and roles:
        return f"{name!r} stands at no role of these prompts, which have {', '.join(roles)}"
    if known:
        return (
            f"{name!r} is a node at one role, and whole heads and MLPs are asked for here: write {component_of(name)}"
        )
    form = "" if _NAME.fullmatch(name) else "; write a head as L3H1 and an MLP as mlp3"
    return (
        f"{name!r} is no node of {spec.name}, which has layers 0 to {spec.n_layers - 1} of {spec.n_heads} heads and an "
        f"MLP each{form}"
    )


def component_of(name: str) -> str:
    """The head or MLP of a node, its role left out."""
    return name.partition("@")[0]


def members_of(spec: ModelSpec, mask: Mask, roles: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the nodes of a mask, in order."""
    return tuple(str(node) for node, is_in in zip(nodes_of(spec, roles), mask, strict=True) if is_in)


@dataclass
class NodeRuns:
    """Runs of a task's clean prompts in which some nodes carry what they carry in corrupted ones.

    how: "resample" is the value of the corrupted twin at the same place, "mean" the mean over all corrupted prompts.
    by_role: nodes are heads and MLPs at one role of the prompts.
    """

    target: TargetModel
    prompts: TaskPrompts
    how: Ablation = "resample"
    by_role: bool = False

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Of the nodes; none where they are whole heads and MLPs."""
        return roles_of(self.prompts) if self.by_role else ()

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All of them, in the order of masks."""
        return nodes_of(self.target.spec, self.roles)

    @cached_property
    def whole(self) -> Mask:
        """(n_nodes,) all of them."""
        return np.ones(len(self.nodes), dtype=bool)

    @cached_property
    def standing(self) -> Tensor:
        """(pos,) number of the role at each position; (1,) where nodes are whole heads and MLPs."""
        if not self.by_role:
            return torch.zeros(1, dtype=torch.long)
        return torch.tensor([self.roles.index(role or REST) for role in self.prompts.roles])

    @cached_property
    def able(self) -> Mask:
        """(n_nodes,) False at nodes that cannot change a score: where no prompt differs from its twin up to there (resampling
        alone), and those of the last layer away from the last position."""
        able = self.whole.copy()
        if not self.by_role:
            return able
        differs = (self.prompts.clean != self.prompts.corrupted).any(dim=0).cumsum(dim=0) > 0
        reached = (
            {int(role) for role in self.standing[differs]} if self.how == "resample" else set(range(len(self.roles)))
        )
        by_role = able.reshape(-1, len(self.roles))
        by_role[:, [role for role in range(len(self.roles)) if role not in reached]] = False
        last = np.arange(len(self.roles)) == int(self.standing[-1])
        by_role[-(self.target.spec.n_heads + 1) :, ~last] = False
        return able

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
        n_layers = self.target.spec.n_layers
        first = 0 if before is None else before.agrees(circuit, len(circuit) // n_layers)
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
        by_layer = kept.reshape(len(kept), spec.n_layers, spec.n_heads + 1, -1)[..., self.standing].transpose(2, 3)
        for layer in range(start, spec.n_layers):
            heads, mlp = by_layer[:, layer, :, :-1, None], by_layer[:, layer, :, -1:]
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
