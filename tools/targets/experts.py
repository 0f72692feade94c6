"""The experts of a layer: what each of their neurons writes, and the router that weighs them.

A neuron of an expert has as activation what its expert computes times the share that the router gives the expert at that
token, 0 where the expert is not chosen; its write vector is its row of the expert's output weights. What the MLP writes is
then, exactly, the sum over all experts' neurons of activation times write vector, and of each expert's output bias times its
share. An edit therefore moves the output of the MLP along the write vector whether or not the expert was chosen there.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.hooks import Removable, RemovedTogether, Visit, before

ROUTERS = ("router", "gate")


@dataclass(eq=False)
class Experts:
    """The experts of one layer. block: the MLP that holds them; router, module: inside it."""

    block: nn.Module
    router: nn.Module
    module: Any
    _visits: list[tuple[int, Visit]] = field(default_factory=list)
    _shape: tuple[int, int] = (1, 1)

    @property
    def n_experts(self) -> int:
        """How many the router chooses from."""
        return int(self.module.down_proj.shape[0])

    @property
    def width(self) -> int:
        """Neurons of one expert."""
        return int(self.module.down_proj.shape[1 if self.module.is_transposed else 2])

    def read_vectors(self, expert: int) -> Tensor:
        """(width, d_model) of the gates of an expert."""
        both = _rows(self.module.gate_up_proj[expert], not self.module.is_transposed)
        gate: Tensor = both[:, : self.width] if self.module.is_concatenated else both[:, ::2]
        return gate.detach().float().T

    def write_vectors(self, expert: int) -> Tensor:
        """(width, d_model)."""
        return _rows(self.module.down_proj[expert], not self.module.is_transposed).detach().float()

    def biases(self) -> Tensor:
        """(n_experts, d_model) what each expert writes beside its neurons, where its share is 1."""
        if self.module.has_bias:
            found: Tensor = self.module.down_proj_bias.detach().float()
            return found
        return torch.zeros(self.n_experts, self.write_vectors(0).shape[1])

    def hooked(self, expert: int, visit: Visit) -> Removable:
        """Calls `visit` with the activations (batch, pos, width) of an expert, and moves the output of the MLP by the change."""
        mine = (expert, visit)
        if not self._visits:
            self._watching = RemovedTogether(
                (before(self.block, self._note_shape), self.module.register_forward_hook(self._visited))
            )
        self._visits.append(mine)
        return _Visiting(self, mine)

    def leave(self, mine: tuple[int, Visit]) -> None:
        """Takes out one visit."""
        self._visits = [one for one in self._visits if one is not mine]
        if not self._visits:
            self._watching.remove()

    def router_hooked(self, visit: Visit) -> Removable:
        """Calls `visit` with the shares (batch, pos, n_experts), 0 of those not chosen; an expert that is given one is run."""

        def weighed(_: nn.Module, args: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            logits, shares, chosen = output
            every = shares.new_zeros(len(shares), self.n_experts).scatter(1, chosen, shares).view(*self._shape, -1)
            changed = visit(every)
            if changed is every:
                return output
            everyone = torch.arange(self.n_experts).expand(len(shares), -1)
            return logits, changed.reshape(len(shares), -1), everyone

        return RemovedTogether((before(self.block, self._note_shape), self.router.register_forward_hook(weighed)))

    def _note_shape(self, x: Tensor) -> Tensor:
        self._shape = (x.shape[0], x.shape[1])
        return x

    def _visited(self, _: nn.Module, args: tuple[Tensor, Tensor, Tensor], output: Tensor) -> Tensor:
        x, chosen, shares = args
        for expert in dict.fromkeys(one for one, _ in self._visits):
            plain = changed = self._activations(expert, x, chosen, shares).view(*self._shape, -1)
            for one, visit in self._visits:
                changed = visit(changed) if one == expert else changed
            if changed is not plain:
                rows = _rows(self.module.down_proj[expert], not self.module.is_transposed)
                output = output + ((changed - plain) @ rows).view_as(output)
        return output

    def _activations(self, expert: int, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        """(n_tokens, width) of x (n_tokens, d_model): only the tokens of the expert are computed."""
        rows = (chosen == expert).any(dim=-1).nonzero()[:, 0]
        share = (shares * (chosen == expert)).sum(dim=-1)[rows, None]
        both = x[rows] @ _rows(self.module.gate_up_proj[expert], not self.module.is_transposed)
        if self.module.has_bias:
            both = both + self.module.gate_up_proj_bias[expert]
        own = self.module._apply_gate(both) * share.to(both.dtype)
        return torch.zeros(len(x), self.width, dtype=own.dtype).index_copy(0, rows, own)


@dataclass(frozen=True)
class _Visiting:
    """One visit of an expert, until it is taken out."""

    experts: Experts
    mine: tuple[int, Visit]

    def remove(self) -> None:
        """Takes it out."""
        self.experts.leave(self.mine)


def experts_of(mlp: nn.Module, name: str) -> Experts | None:
    """The experts of an MLP, None where it has none. Refuses experts that are built in another way than is known."""
    module: Any = getattr(mlp, "experts", None)
    if module is None:
        return None
    router = next((one for part in ROUTERS if isinstance(one := getattr(mlp, part, None), nn.Module)), None)
    if getattr(mlp, "shared_expert", None) is not None or getattr(mlp, "shared_experts", None) is not None:
        raise UserError(
            f"{name} cannot be studied: beside the experts that its router chooses, its layers have a shared expert, whose "
            "neurons have no address here; mixtral, qwen3_moe and gpt_oss have none"
        )
    known = all(isinstance(getattr(module, part, None), nn.Parameter) for part in ("gate_up_proj", "down_proj"))
    flags = [getattr(module, flag, None) for flag in ("is_transposed", "is_concatenated", "has_bias", "has_gate")]
    if router is None or not known or None in flags or not flags[-1] or getattr(module, "has_post_expert_norm", False):
        raise UserError(
            f"{name} cannot be studied: its experts are not gated MLPs that a router weighs as in mixtral, qwen3_moe and gpt_oss"
        )
    return Experts(mlp, getattr(router, "original_component", router), module)


def _rows(weight: Tensor, turned: bool) -> Tensor:
    """A weight as it is applied from the right, x @ W."""
    return weight.T if turned else weight
