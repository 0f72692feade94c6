"""Neurons of a layer: their activation at each token, in both directions."""

from dataclasses import dataclass

import numpy as np
import torch

from neuronaut.tools.kinds.base import Arrays, Batch, Chunk, IndexSettings, Read
from neuronaut.tools.kinds.values import ValueCollector, ValueSummary
from neuronaut.tools.targets.base import Site

_FEW = 0.1  # below this share of candidates, looking up their positions one by one is cheaper


@dataclass(frozen=True)
class Neurons:
    """The `width` neurons of a layer, or of one of its experts; places: window and position."""

    layer: int
    width: int
    expert: int | None = None

    @property
    def name(self) -> str:
        """The folder of its shards."""
        return f"neurons-{self.layer:03d}" + ("" if self.expert is None else f"-e{self.expert:03d}")

    @property
    def sites(self) -> tuple[Site, ...]:
        """After the activation."""
        return (Site("neurons", self.layer, expert=self.expert),)

    @property
    def bytes_a_cell(self) -> tuple[int, int]:
        """A float32 a neuron and token."""
        return 4 * self.width, 0

    @property
    def tokens_at_once(self) -> None:
        """As many as fit into a batch."""

    def empty(self, settings: IndexSettings) -> ValueSummary:
        """The summary of no text."""
        return ValueSummary.empty(self.width, settings, signs=2, n_places=2)

    def restore(self, arrays: Arrays, settings: IndexSettings) -> ValueSummary:
        """The summary that was stored."""
        return ValueSummary.of(arrays, settings)

    def collect(self, chunk: Chunk, into: ValueSummary) -> "NeuronCollector":
        """What takes in a chunk."""
        return NeuronCollector(self, ValueCollector(chunk, into))


@dataclass
class NeuronCollector:
    """One chunk of the neurons of a layer."""

    kind: Neurons
    values: ValueCollector

    def take(self, batch: Batch, read: Read) -> None:
        """Takes in a batch; writes over the activations."""
        x = read[self.kind.sites[0]].to("cpu", torch.float32).contiguous()
        if "shown" not in batch.memo:
            batch.memo["shown"] = _Shown.of(batch)
        shown: _Shown = batch.memo["shown"]
        rows = x.view(-1, self.kind.width)
        rows.index_copy_(0, shown.hidden, rows.index_select(0, shown.instead))
        peaks = torch.stack([x.amax(dim=1), x.amin(dim=1).neg_()], dim=1)
        self.values.add_values(x, batch, batch.scored, positive=bool(peaks[:, 1].max() <= 0))
        position = torch.empty(peaks.shape, dtype=torch.int64)
        for side, least in enumerate(self.values.least):
            position[:, side] = _positions(x, peaks[:, side], least, sign=-1.0 if side else 1.0)
        self.values.add_maxima(peaks, shown.at.gather(1, position.flatten(1)).view_as(position), batch)

    def finish(self) -> None:
        """Adds the chunk to the summary."""
        self.values.finish()


@dataclass(frozen=True)
class _Shown:
    """What stands at positions that do not count: a copy of the first that does, which changes neither the largest nor the
    smallest value of a window. at: (n, pos) the position that is shown; hidden, instead: rows (n · pos) that are written over,
    and those that they are written over with."""

    at: torch.Tensor
    hidden: torch.Tensor
    instead: torch.Tensor

    @classmethod
    def of(cls, batch: Batch) -> "_Shown":
        first = batch.scored.argmax(axis=1)[:, None]
        at = np.where(batch.scored, np.arange(batch.width), first)
        hidden = np.flatnonzero(~batch.scored)
        instead = (np.arange(len(at))[:, None] * batch.width + at).reshape(-1)[hidden]
        return cls(*map(torch.from_numpy, (at, hidden, instead)))


def _positions(x: torch.Tensor, peak: torch.Tensor, least: torch.Tensor, *, sign: float) -> torch.Tensor:
    """(n, width) the first position at which each window times `sign` is `peak` (n, width), if that is above `least` (width,): the position
    of a document that cannot be kept is not looked up."""
    wanted, peak = peak > least, sign * peak
    if int(wanted.sum()) > _FEW * wanted.numel():
        rising = torch.arange(x.shape[1], 0, -1, dtype=torch.float32)[:, None]
        equal = torch.eq(x, peak[:, None], out=torch.empty_like(x))
        return x.shape[1] - equal.mul_(rising).amax(dim=1).long()
    at = torch.zeros(peak.shape, dtype=torch.int64)
    window, unit = wanted.nonzero(as_tuple=True)
    at[window, unit] = (x[window, :, unit] == peak[window, unit][:, None]).byte().argmax(dim=1)
    return at
