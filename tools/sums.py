"""Sums of floating-point arrays that are equal bit for bit however they were divided and in whatever order they came."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass
class TreeSum:
    """The sum over numbered chunks of arrays of one shape, float64.

    Neighbours are added first: chunks 2i and 2i + 1, then pairs of pairs. nodes: (level, place) to the sum over the chunks
    place · 2^level to (place + 1) · 2^level - 1; no two of them are neighbours. Which additions are made depends on the chunks
    alone, so that merging is associative and commutative exactly; at most about log2(chunks) arrays remain.
    """

    shape: tuple[int, ...]
    nodes: dict[tuple[int, int], Floats] = field(default_factory=dict)

    def add(self, chunk: int, value: Floats) -> None:
        """Takes in the sum over one chunk. A chunk that was there before is a bug."""
        self._put(0, chunk, np.asarray(value, dtype=np.float64))

    def merge(self, other: "TreeSum") -> None:
        """Takes in the sums over other chunks."""
        for (level, place), value in other.nodes.items():
            self._put(level, place, value)

    def _put(self, level: int, place: int, value: Floats) -> None:
        if (level, place) in self.nodes:
            raise ValueError(f"chunks {place << level} to {((place + 1) << level) - 1} were added before")
        while (level, place ^ 1) in self.nodes:
            value = value + self.nodes.pop((level, place ^ 1))  # addition of two numbers is commutative exactly
            level, place = level + 1, place >> 1
        self.nodes[level, place] = value

    def total(self) -> Floats:
        """The sum over all chunks: what remains, from the first chunk to the last."""
        found = np.zeros(self.shape)
        for level, place in sorted(self.nodes, key=lambda at: at[1] << at[0]):
            found = found + self.nodes[level, place]
        return found

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """As it is stored: NAME_at (n, 2) levels and places, NAME (n, …) sums."""
        at = sorted(self.nodes)
        values = [self.nodes[one] for one in at]
        return {
            f"{name}_at": np.array(at, dtype=np.int64).reshape(-1, 2),
            name: np.stack(values) if values else np.zeros((0, *self.shape)),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]], name: str) -> Self:
        """What `arrays` stored."""
        at, values = arrays[f"{name}_at"], arrays[name]
        nodes = {(int(one[0]), int(one[1])): np.asarray(value) for one, value in zip(at, values, strict=True)}
        return cls(values.shape[1:], nodes)
