"""Correlations of two sets of units in one pass: sums are kept, activations are not."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SPREAD = 1e-6  # of a unit's own size, below which it is constant


@dataclass
class Moments:
    """Sums over places. blocks: how many units of the second set belong to each layer; of these the products among themselves are
    kept too, from which what a rotated layer would hold is known without reading it."""

    blocks: Sequence[int]
    n: int = 0
    shift: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    sums: list[Tensor] = field(default_factory=list, repr=False)
    squares: list[Tensor] = field(default_factory=list, repr=False)
    cross: Tensor | None = field(default=None, repr=False)
    inner: list[Tensor] = field(default_factory=list, repr=False)

    def add(self, first: Tensor, second: Tensor) -> None:
        """Takes in places (n, n_first) and (n, n_second). All are counted from the means of the first ones, so that nothing is
        lost where means are large beside deviations."""
        if not len(first):
            return
        if self.shift is None or self.cross is None:
            self.shift = first.mean(dim=0), second.mean(dim=0)
            widths = (first.shape[1], second.shape[1])
            self.sums = [torch.zeros(width, dtype=torch.float64) for width in widths]
            self.squares = [torch.zeros(width, dtype=torch.float64) for width in widths]
            self.cross = torch.zeros(widths, dtype=torch.float64)
            self.inner = [torch.zeros(width, width, dtype=torch.float64) for width in self.blocks]
        x, y = first - self.shift[0], second - self.shift[1]
        self.n += len(x)
        for at, one in enumerate((x, y)):
            self.sums[at] += one.sum(dim=0, dtype=torch.float64)
            self.squares[at] += one.square().sum(dim=0, dtype=torch.float64)
        self.cross += x.T @ y
        for inner, part in zip(self.inner, torch.split(y, list(self.blocks), dim=1), strict=True):
            inner += part.T @ part

    @property
    def deviations(self) -> list[Tensor]:
        """Standard deviations of both sets; 0 of units that are constant."""
        found = []
        for sums, squares in zip(self.sums, self.squares, strict=True):
            variance = (squares / self.n - (sums / self.n).square()).clamp_min(0)
            found.append(torch.where(variance > SPREAD**2 * (squares / self.n), variance.sqrt(), 0.0))
        return found

    def correlations(self) -> Tensor:
        """(n_first, n_second), 0 where either unit is constant."""
        assert self.cross is not None
        first, second = self.deviations
        found = self.cross / self.n - torch.outer(self.sums[0], self.sums[1]) / self.n**2
        found *= _inverse(first)[:, None]
        found *= _inverse(second)
        return found.float().clamp_(-1, 1)

    def rotated(self, seed: int) -> Tensor:
        """(n_first, n_second) with random mixtures of the units of each block, as many as it has, in place of its units.

        Each unit enters by its own deviation, so that none outweighs the others.
        """
        whole, second, parts = self.correlations(), self.deviations[1], []
        generator, at = torch.Generator().manual_seed(seed), 0
        for width, inner in zip(self.blocks, self.inner, strict=True):
            place = slice(at, at + width)
            mixed = torch.randn(width, width, generator=generator)
            scale, mean = _inverse(second[place]), self.sums[1][place] / self.n
            own = ((inner / self.n - torch.outer(mean, mean)) * torch.outer(scale, scale)).float()
            size = (mixed * (own @ mixed)).sum(dim=0).clamp_min(1e-12).sqrt()
            parts.append(whole[:, place] @ (mixed / size))
            at += width
        return torch.cat(parts, dim=1).clamp_(-1, 1)


def _inverse(deviation: Tensor) -> Tensor:
    return torch.where(deviation > 0, 1 / deviation.clamp_min(1e-300), 0.0)
