"""The experts of a layer in mlx, and the router that weighs them; neurons and shares mean what they do in targets.experts.

mlx-lm computes shares and neurons inside its own block, where nothing can be read or changed: one that holds the same modules
takes its place.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from neuronaut.tools.targets.mlx.arrays import weight_in
from neuronaut.tools.targets.mlx.configs import Understood
from neuronaut.tools.targets.mlx.visits import ArrayVisit, Held, after, is_visited


class Passed(nn.Module):  # type: ignore[misc]  # mlx has no types here
    """A place that is no module of the model: what passes it can be visited."""

    def __call__(self, x: mx.array) -> mx.array:
        """The same."""
        return x


@dataclass(frozen=True)
class Places:
    """Where a block of experts is visited: its shares, and the neurons of each expert. No part of the model's tree."""

    shares: Passed
    neurons: tuple[Passed, ...]


class ExpertMlp(nn.Module):  # type: ignore[misc]
    """An MLP of experts, of the router and the experts of mlx-lm's own block."""

    def __init__(self, plain: nn.Module, found: Understood) -> None:
        super().__init__()
        names, routing = found.names, found.routing
        assert names.router is not None
        assert names.experts is not None
        assert routing is not None
        self[names.router], self[names.experts] = plain[names.router], plain[names.experts]
        self._names, self._routing = (names.router, names.experts), routing
        self.places = Places(Passed(), tuple(Passed() for _ in range(routing.n_experts)))

    def __call__(self, x: mx.array) -> mx.array:
        """What it writes to the residual stream, (batch, pos, d_model)."""
        chosen, shares = self._routed(x)
        neurons, written = self._computed(x, chosen)
        out = (written * shares[..., None]).sum(axis=-2).astype(x.dtype)
        for expert, place in enumerate(self.places.neurons):
            if is_visited(place):
                own = mx.where(chosen == expert, shares, mx.zeros_like(shares))
                plain = (neurons * own[..., None]).sum(axis=-2).astype(x.dtype)
                changed = place(plain)
                if changed is not plain:
                    out = out + (changed - plain) @ weight_in(self._experts.down_proj, expert).astype(x.dtype).T
        return out

    def visited(self, expert: int | None, visit: ArrayVisit) -> Held:
        """Calls `visit` with the activations (batch, pos, d_mlp) of an expert and moves the output by the change; without one,
        with the shares (batch, pos, n_experts), 0 of those not chosen: an expert that is given one is run."""
        return after(self.places.shares if expert is None else self.places.neurons[expert], visit)

    @property
    def _experts(self) -> Any:
        return self[self._names[1]]

    def _routed(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(batch, pos, k) which experts are run, and the share of each."""
        scores, k = self[self._names[0]](x), self._routing.n_chosen
        chosen = mx.stop_gradient(mx.argpartition(-scores, kth=k - 1, axis=-1)[..., :k])
        if self._routing.of_chosen:
            shares = mx.softmax(mx.take_along_axis(scores, chosen, axis=-1), axis=-1, precise=True)
        else:
            shares = mx.take_along_axis(mx.softmax(scores, axis=-1, precise=True), chosen, axis=-1)
        if not is_visited(self.places.shares):
            return chosen, shares
        every = mx.put_along_axis(mx.zeros_like(scores), chosen, shares, axis=-1)
        changed = self.places.shares(every)
        if changed is every:
            return chosen, shares
        return mx.broadcast_to(mx.arange(self._routing.n_experts), changed.shape), changed

    def _computed(self, x: mx.array, chosen: mx.array) -> tuple[mx.array, mx.array]:
        """(batch, pos, k, d_mlp) the neurons of the chosen experts and (batch, pos, k, d_model) what these write, times no share.

        Tokens of one expert are run together, as mlx-lm does it too.
        """
        experts, of = self._experts, chosen.flatten()
        order = mx.argsort(of)
        back, of = mx.argsort(order), of[order]
        rows = x.flatten(0, -2)[order // chosen.shape[-1]][:, None]
        up, gate = (part(rows, of, sorted_indices=True) for part in (experts.up_proj, experts.gate_proj))
        neurons = experts.activation(up, gate)
        written = experts.down_proj(neurons, of, sorted_indices=True)
        return neurons[back].reshape(*chosen.shape, -1), written[back].reshape(*chosen.shape, -1)
