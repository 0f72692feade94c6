"""Neurons that fire by a rule, with noise: what is planted in a target model by the suites."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from neuronaut.evals.outside import Twist
from neuronaut.tools.predicates.evaluate import strength
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.targets.overlay import Floats
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.dealt import prefix_keys, uniform

LEVEL = 2.0  # about the largest activation of the embedded model's neurons
NOISE = 0.1  # of the level; at 0.2 the noise alone lifts the firing threshold into the places that should fire


@dataclass(frozen=True)
class FromPredicate:
    """level · max(0, truth + noise · z): z is standard normal, drawn by the text up to the token and the seed.

    truth: 1 where the predicate holds, of modes the strength, and 0 where a twist does not apply.
    """

    predicate: Predicate
    seed: int
    level: float = LEVEL
    noise: float = NOISE
    twist: Twist | None = None

    @property
    def name(self) -> str:
        """The predicate with the numbers around it."""
        return f"{canonical_json(self.predicate)} {self.seed} {self.level} {self.noise} {self.twist or ''}".rstrip()

    def __call__(self, tokens: Tokens) -> Floats:
        """(n_windows, n_pos)."""
        z = ndtri(uniform(prefix_keys(tokens.ids), self.seed))
        truth = strength(self.predicate, tokens)
        if self.twist is not None:
            truth = truth * self.twist.applies(tokens)
        return (self.level * np.maximum(0.0, truth + self.noise * z)).astype(np.float32)
