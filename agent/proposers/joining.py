"""The features of two texts together: what is known of the first, which many units share, is not worked out again."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.families import Family, Keys
from neuronaut.agent.proposers.features import Features
from neuronaut.agent.proposers.marks import Flag
from neuronaut.tools.tokens import PAD, Tokens

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Joined(Features):
    """The features of a text that is two others, one after the other, equal to those worked out from the whole.

    Only the numbers of keys may differ, where the second text has tokens that the first lacks.
    """

    first: Features = field(kw_only=True, repr=False)
    second: Features = field(kw_only=True, repr=False)

    @cached_property
    def order(self) -> Keys:
        """As Features.order."""
        return np.concatenate([self.first.order, self.second.order])

    @cached_property
    def pieces(self) -> tuple[Keys, tuple[str, ...]]:
        """As Features.pieces."""
        return np.concatenate([self.first.pieces[0], self.second.pieces[0]]), self.second.pieces[1]

    def _since(self, key: int) -> Keys:
        return np.concatenate([self.first.since(key), self.second.since(key)])

    @cached_property
    def families(self) -> dict[str, Family]:
        """As Features.families."""
        found = {}
        for name, family in self.second.families.items():
            if name == "pair":
                found[name] = self._pairs()
            else:
                keys = np.concatenate([self.first.families[name].keys, family.keys])
                found[name] = replace(family, keys=keys)
        return found

    @cached_property
    def paired(self) -> NDArray[np.int64]:
        """As Features.paired."""
        if len(self.first.pieces[1]) != len(self.pieces[1]):
            return super().paired
        return np.concatenate([self.first.paired, self.second.paired])

    @cached_property
    def marks(self) -> tuple[Flag, ...]:
        """As Features.marks."""
        both = zip(self.first.marks, self.second.marks, strict=True)
        return tuple(Flag(one.node, np.concatenate([one.mask, other.mask]), one.cost) for one, other in both)


def joined_tokens(parts: tuple[Tokens, Tokens]) -> Tokens:
    """Two texts as one, padded to the longest window; its features are joined from theirs."""
    width = max(part.ids.shape[1] for part in parts)
    first, second = parts
    tokens = Tokens(
        _stacked((part.ids for part in parts), width, PAD),
        _stacked((part.starts for part in parts), width, 0),
        _stacked((part.ends for part in parts), width, 0),
        np.concatenate([part.documents for part in parts]),
        (*first.texts, *second.texts),
        first.vocabulary,
    )
    before = Features.of(first)
    Joined(tokens, first=before, second=Features(second, after=before)).remembered()
    return tokens


def joined_values(parts: tuple[NDArray[_Scalar], NDArray[_Scalar]]) -> NDArray[_Scalar]:
    """(n_windows, n_pos) values on two texts as one."""
    return _stacked(parts, max(part.shape[1] for part in parts), 0)


def _stacked(grids: Iterable[NDArray[_Scalar]], width: int, fill: int) -> NDArray[_Scalar]:
    padded = (np.pad(grid, ((0, 0), (0, width - grid.shape[1])), constant_values=fill) for grid in grids)
    return np.concatenate(list(padded))
