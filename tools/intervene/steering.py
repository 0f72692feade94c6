"""A unit that is steered on given texts, and what it is compared with: other units and random directions of equal strength."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.intervene.outcomes import Change, Move, Push, Watched
from neuronaut.tools.intervene.parts import Part, Places
from neuronaut.tools.intervene.strength import written
from neuronaut.tools.registry import Array
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.sites import write_vectors_at
from neuronaut.tools.tokens import Tokens

N_NULLS = 16  # other units of the layer, and as many random directions


@dataclass(frozen=True)
class Steering:
    """A neuron, head or feature, the texts and places where it is steered, and what is watched."""

    target: TargetModel
    tokens: Tokens
    places: Places
    part: Part
    watched: Watched
    seed: int

    def step(self, dose: float, part: Part | None = None) -> Move:
        """`dose` units of activation more of a neuron, or of a head that many times its natural output more."""
        part = part or self.part
        return Change(part, dose, "add") if part.is_number else Change(part, 1 + dose, "scale")

    @cached_property
    def stride(self) -> Tensor:
        """(n_texts, m, d_model) what a dose of 1 adds to what the layer writes."""
        return written(self.target, self.tokens, self.places, [self.step(1.0)])[0]

    @cached_property
    def others(self) -> list[Tensor]:
        """Directions of length 1 of other units of the layer: (d_model,) of neurons and features, (n_texts, m, d_model) of heads."""
        peers = self.part.peers(self.target, self.tokens, self.seed, N_NULLS)
        if self.part.is_number:
            writes = write_vectors_at(self.target, self.part.site)
            return [F.normalize(writes[peer.index], dim=0) for peer in peers]
        steps = (
            written(self.target, self.tokens, self.places, [self.step(1.0, peer) for peer in peers]) if peers else []
        )
        return [F.normalize(step, dim=-1) for step in steps]

    @cached_property
    def random(self) -> list[Tensor]:
        """Directions of length 1, (d_model,), drawn uniformly."""
        made = np.random.default_rng(self.seed).standard_normal((N_NULLS, self.target.spec.d_model))
        return list(F.normalize(torch.from_numpy(made).float(), dim=1))

    def amounts(self, moves: Sequence[Move]) -> Tensor:
        """(n_moves, n_texts, m) norms of what each move adds to what the layer writes, negative where it lowers the unit."""
        changes = torch.stack(written(self.target, self.tokens, self.places, moves))
        return changes.norm(dim=-1) * torch.sign((changes * self.stride).sum(dim=-1))

    def pushes(self, direction: Tensor, amounts: Tensor) -> list[Move]:
        """Moves along another direction by `amounts`, (n_moves, n_texts, m)."""
        return [Push(self.part.out, direction, one) for one in amounts]

    def scores(self, moves: Sequence[Move]) -> Array:
        """(n_moves, n_texts) of what is watched, in nats."""
        return self.watched.outcomes(self.target, self.tokens, self.places, moves).total.numpy()

    def null_curves(self, amounts: Tensor) -> dict[str, Array]:
        """(n_nulls, n_moves, n_texts) scores along other directions, each pushed by `amounts`."""
        found = {}
        for name, directions in {"other_units": self.others, "random_directions": self.random}.items():
            moves = [move for direction in directions for move in self.pushes(direction, amounts)]
            shape = (len(directions), len(amounts), len(self.tokens))
            found[name] = self.scores(moves).reshape(shape) if moves else np.zeros(shape)
        return found
