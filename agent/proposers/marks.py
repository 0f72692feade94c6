"""Leaves without a choice inside: a digit, the start of a word, inside quotes, …"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.counts import Mask
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds, shifted
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import complexity
from neuronaut.tools.tokens import Tokens

_MARKS = (('"', '"'), ("“", "”"), ("'", "'"), ("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"))
_SHAPES = ("^[a-z]", "^ [a-z]", "^[A-Z]", "^ [A-Z]", "^ ?[A-Z]+$", "[0-9]{2}", "^ ?[A-Za-z]$")


@dataclass(frozen=True)
class Flag:
    """A leaf without a choice inside: true or false at each place."""

    node: Predicate
    mask: Mask
    cost: int

    def held(self) -> Mask:
        """(n_places,) where it is true."""
        return self.mask

    def denied(self) -> Mask:
        """(n_places,) where it is false."""
        return ~self.mask


def marks_of(tokens: Tokens, at_places: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> tuple[Flag, ...]:
    """The leaves at each place, and some of them one token earlier. at_places: the places' values of a (n_windows, n_pos) array."""
    leaves: list[Predicate] = [
        nodes.Digit(), nodes.Capitalised(), nodes.Punctuation(), nodes.StartsWord(), nodes.StartsSentence(),
        nodes.Repeated(min_gap=1), nodes.Induction(length=1), nodes.Induction(length=2),
    ]  # fmt: skip
    leaves += [nodes.Inside(open=left, close=right) for left, right in _MARKS]
    leaves += [nodes.TokenMatches(regex=shape) for shape in _SHAPES]
    found = []
    for leaf in leaves:
        grid = holds(leaf, tokens)
        found.append(Flag(leaf, np.asarray(at_places(grid), dtype=bool), complexity(leaf)))
        if not isinstance(leaf, nodes.Inside | nodes.Repeated | nodes.Induction | nodes.TokenMatches):
            at_one = nodes.At(offset=1, inner=leaf)
            found.append(Flag(at_one, np.asarray(at_places(shifted(grid, 1)), dtype=bool), complexity(at_one)))
    return tuple(found)
