"""What cut edges carry from another run into this one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.targets.hooks import Visit
from neuronaut.tools.targets.receivers import masked


class Carried:
    """What the cut edges add to what each receiver reads, as the senders of a run become known.

    other: (batch or 1, n_senders, pos, d_model); cut: (batch or 1, n_receivers, n_senders) bool.
    """

    def __init__(self, wires: Wires, other: Tensor, cut: Tensor, positions: Tensor | None) -> None:
        self.wires, self._other, self._cut, self._positions = wires, other, cut, positions
        self._needed = cut.any(dim=0).any(dim=0)
        self._columns = (self._needed.cumsum(0) - 1).tolist()
        self._changes: Tensor | None = None
        self.cut_receivers = cut.any(dim=2).any(dim=0)

    def needs(self, numbers: range) -> bool:
        """Whether what these senders write is carried anywhere."""
        return bool(self._needed[numbers.start : numbers.stop].any())

    def wrote(self, numbers: range, values: Tensor) -> None:
        """Takes note of what some senders write in this run."""
        at = [number for number in numbers if self._needed[number]]
        if not at:
            return
        if self._changes is None:
            shape = (len(values), int(self._needed.sum()), *values.shape[2:])
            self._changes = torch.empty(shape, dtype=torch.float32)
        change = self._other[:, at] - values[:, [number - numbers.start for number in at]].float()
        first = self._columns[at[0]]
        self._changes[:, first : first + len(at)] = masked(change, self._positions)

    def cuts(self, receivers: range) -> list[int]:
        """Those of the receivers, counted from the first, that have an edge cut in some row."""
        return self.cut_receivers[receivers.start : receivers.stop].nonzero()[:, 0].tolist()

    def adding(self, receiver: int) -> Visit:
        """Adds to what it sees what is carried to one receiver."""
        return lambda x: x + self.change([receiver])[:, 0].to(x.dtype)

    def change(self, receivers: Sequence[int]) -> Tensor:
        """(batch, n, pos, d_model) what is added to what each of the receivers reads."""
        assert self._changes is not None
        known = self._needed[: self.wires.earlier[receivers[-1]]].nonzero()[:, 0]
        weights = self._cut[:, receivers][:, :, known].to(self._changes.dtype)
        changes = self._changes[:, : len(known)]
        return (weights @ changes.flatten(2)).reshape(-1, len(receivers), *changes.shape[2:])
