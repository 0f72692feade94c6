"""Rules to plant, of ten families, and how well a claim tells their places."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals.outside import Twist
from neuronaut.evals.overlay import NOISE, FromPredicate
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json, predicate_from_json
from neuronaut.tools.tokens import Tokens

Simple = Literal["token set", "bigram", "skip", "context", "position", "characters", "inside marks", "negation"]
Family = Literal[Simple, "modes", "outside"]
SIMPLE: tuple[Simple, ...] = get_args(Simple)
FAMILIES: tuple[Family, ...] = get_args(Family)

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """A rule and the family that it was drawn from; twist: what the language cannot say of it."""

    family: Family
    predicate: Predicate
    twist: Twist | None = None

    def holds(self, tokens: Tokens) -> Bools:
        """(n_windows, n_pos) where the unit is meant to fire; False at padding and special tokens."""
        held = holds(self.predicate, tokens)
        return held if self.twist is None else held & self.twist.applies(tokens)

    def planted(self, seed: int, noise: float = NOISE) -> FromPredicate:
        """The activation."""
        return FromPredicate(self.predicate, seed, noise=noise, twist=self.twist)

    def nearest(self, tokens: Tokens) -> float:
        """The largest F1 on a text of the predicates that come nearest; 1 for a rule of the language."""
        if self.twist is None:
            return 1.0
        true = self.holds(tokens)
        return max(truth_f1(holds(one, tokens), true) for one in self.twist.nearest(self.predicate))

    def __str__(self) -> str:
        return str(self.predicate) if self.twist is None else f"{self.predicate} with {self.twist}"

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        twist = None if self.twist is None else asdict(self.twist)
        return {"family": self.family, "predicate": canonical_json(self.predicate), "twist": twist}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Truth":
        """The truth that `to_json` wrote."""
        twist = stored["twist"]
        return cls(
            stored["family"],
            predicate_from_json(stored["predicate"]),
            None if twist is None else Twist(twist["kind"], twist["n"], tuple(twist["tokens"]), twist["seed"]),
        )


def families(n: int) -> list[Family]:
    """The families of `n` cases in turn: every fifth lies outside the language, about every seventh has modes."""
    found: list[Family] = []
    simple = cycle(SIMPLE)
    for number in range(n):
        found.append("outside" if number % 5 == 4 else "modes" if number % 7 == 3 else next(simple))
    return found


def truth_f1(claimed: Bools, true: Bools) -> float:
    """F1 of the places of a claim against those of the truth; 0 where they share none."""
    both = int((claimed & true).sum())
    return 2 * both / int(claimed.sum() + true.sum()) if both else 0.0
