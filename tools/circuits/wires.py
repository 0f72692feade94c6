"""The wires of a model: which parts write to the residual stream, which parts read it, and which of them can meet.

Senders, in the order in which they write: "embed", then of each layer its heads ("L3H1") and its MLP ("mlp3"). Receivers, in the
order in which they read: of each layer the queries of each head ("L3H1.q"), the keys and values ("L3H1.k", "L3H1.v"; "L3KV0.k"
where several heads share them), the MLP ("mlp3"), and last "logits". An edge leads from a sender to a receiver that reads
later.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import ModelSpec

Part = Literal["q", "k", "v"]
PARTS: tuple[Part, ...] = ("q", "k", "v")


class Edge(NamedTuple):
    """One edge by the names of its ends."""

    sender: str
    receiver: str

    def __str__(self) -> str:
        return f"{self.sender}->{self.receiver}"


@dataclass(frozen=True)
class Wires:
    """Senders and receivers of a model of one shape, by number and by name.

    has_mlp: False for attention-only models. parallel: the MLP of a layer reads what its attention reads.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    has_mlp: bool
    parallel: bool = False

    @classmethod
    def of(cls, spec: ModelSpec) -> "Wires":
        """The wires of a target."""
        return cls(spec.n_layers, spec.n_heads, spec.n_kv_heads, spec.d_mlp > 0, spec.parallel)

    def heads(self, layer: int) -> range:
        """The numbers of a layer's heads among the senders."""
        first = 1 + layer * (self.n_heads + self.has_mlp)
        return range(first, first + self.n_heads)

    def mlp(self, layer: int) -> range:
        """The number of a layer's MLP among the senders; empty where there is none."""
        first = self.heads(layer).stop
        return range(first, first + self.has_mlp)

    def reads(self, layer: int, part: Part) -> range:
        """The numbers of a layer's queries, keys or values among the receivers."""
        first = layer * (self.n_heads + 2 * self.n_kv_heads + self.has_mlp)
        match part:
            case "q":
                return range(first, first + self.n_heads)
            case "k":
                return range(first + self.n_heads, first + self.n_heads + self.n_kv_heads)
            case "v":
                return range(first + self.n_heads + self.n_kv_heads, first + self.n_heads + 2 * self.n_kv_heads)

    def mlp_reads(self, layer: int) -> range:
        """The number of a layer's MLP among the receivers; empty where there is none."""
        first = self.reads(layer, "v").stop
        return range(first, first + self.has_mlp)

    @property
    def logits(self) -> int:
        """The number of the last receiver."""
        return self.n_layers * (self.n_heads + 2 * self.n_kv_heads + self.has_mlp)

    @cached_property
    def senders(self) -> tuple[str, ...]:
        """The names of the senders, in order."""
        names = ["embed"]
        for layer in range(self.n_layers):
            names += [f"L{layer}H{head}" for head in range(self.n_heads)] + [f"mlp{layer}"] * self.has_mlp
        return tuple(names)

    @cached_property
    def receivers(self) -> tuple[str, ...]:
        """The names of the receivers, in order."""
        shared, names = "H" if self.n_kv_heads == self.n_heads else "KV", list[str]()
        for layer in range(self.n_layers):
            names += [f"L{layer}H{head}.q" for head in range(self.n_heads)]
            names += [f"L{layer}{shared}{head}.{part}" for part in "kv" for head in range(self.n_kv_heads)]
            names += [f"mlp{layer}"] * self.has_mlp
        return (*names, "logits")

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layer of each receiver; that of "logits" is the one after the last."""
        width = self.n_heads + 2 * self.n_kv_heads + self.has_mlp
        return tuple(number // width for number in range(self.logits + 1))

    @cached_property
    def earlier(self) -> tuple[int, ...]:
        """How many senders, the first ones, each receiver can read."""
        found = []
        for layer in range(self.n_layers):
            first = self.heads(layer)
            reads_mlp = first.start if self.parallel else first.stop
            found += [first.start] * (self.n_heads + 2 * self.n_kv_heads) + [reads_mlp] * self.has_mlp
        return (*found, len(self.senders))

    @cached_property
    def possible(self) -> Tensor:
        """(n_receivers, n_senders) bool: the edges that exist."""
        return torch.arange(len(self.senders)) < torch.tensor(self.earlier)[:, None]

    @cached_property
    def carried_on(self) -> Tensor:
        """(n_senders, n_receivers) bool: what each sender is computed from. A head reads its own queries and the keys and
        values that it shares; "embed" reads nothing."""
        found = torch.zeros(len(self.senders), len(self.receivers), dtype=torch.bool)
        group = self.n_heads // self.n_kv_heads
        for layer in range(self.n_layers):
            for head, sender in enumerate(self.heads(layer)):
                found[sender, self.reads(layer, "q")[head]] = True
                for part in ("k", "v"):
                    found[sender, self.reads(layer, part)[head // group]] = True
            for sender, receiver in zip(self.mlp(layer), self.mlp_reads(layer), strict=True):
                found[sender, receiver] = True
        return found

    def sender(self, name: str) -> int:
        """The number of a sender. Refuses a name that is none."""
        return _numbered(name, self.senders, "writes to the residual stream")

    def receiver(self, name: str) -> int:
        """The number of a receiver. Refuses a name that is none."""
        return _numbered(name, self.receivers, "reads the residual stream")

    def mask(self, edges: list[Edge]) -> Tensor:
        """(n_receivers, n_senders) bool of the named edges. Refuses one that does not exist."""
        found = torch.zeros_like(self.possible)
        for edge in edges:
            at = self.receiver(edge.receiver), self.sender(edge.sender)
            if not self.possible[at]:
                raise ToolRefused(f"{edge} is no edge: {edge.receiver} reads before {edge.sender} writes")
            found[at] = True
        return found

    def edges(self, mask: Tensor) -> list[Edge]:
        """The names of the edges of a mask, receivers first in order."""
        return [Edge(self.senders[sender], self.receivers[receiver]) for receiver, sender in mask.nonzero().tolist()]

    def connected(self, mask: Tensor) -> Tensor:
        """(n_receivers, n_senders) bool: the edges of a mask that lie on a path from "embed" to "logits".

        The others do not matter to the logits where what is not kept carries another run: a part that nothing reaches
        gives what it gives there, and a part that leads nowhere is not seen.
        """
        mask = mask & self.possible
        reached = torch.zeros(len(self.senders), dtype=torch.bool)
        reached[0] = True
        for sender in range(1, len(self.senders)):
            reads = mask[self.carried_on[sender]]
            reached[sender] = bool((reads & reached).any())
        leads = torch.zeros(len(self.receivers), dtype=torch.bool)
        leads[self.logits] = True
        for sender in range(len(self.senders) - 1, 0, -1):
            if bool((mask[:, sender] & leads).any()):
                leads |= self.carried_on[sender]
        return mask & reached & leads[:, None]


def _numbered(name: str, names: tuple[str, ...], what: str) -> int:
    if name not in names:
        middle = names[len(names) // 2]
        raise ToolRefused(f"{name!r} is no part that {what}: there are {names[0]}, {middle}, …, {names[-1]}")
    return names.index(name)
