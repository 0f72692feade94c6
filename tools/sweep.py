"""One pass over text that summarises many kinds and layers of units at once."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.corpus import Document
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.kinds.base import Arrays, Batch, Chunk, Collector, IndexSettings, Kind, Read, Summary
from neuronaut.tools.targets.base import ModelSpec, Run, Site, TargetModel
from neuronaut.tools.targets.patterns import SHORT
from neuronaut.tools.tokens import PAD

BATCH_TOKENS = 2048  # so that a layer's activations stay in the processor's cache
CELL_BYTES = 128 << 20  # attention of one layer in one batch
READ_BYTES = 256 << 20  # activations that are held at once; more layers are run one group after the other
Groups = Sequence[Sequence[Document]]


@dataclass(frozen=True)
class Sweep:
    """What to look at and keep. kinds: the parts, by name. drawn: tokens of smaller priority go into histograms."""

    kinds: tuple[Kind, ...]
    drawn: int
    settings: IndexSettings

    def __post_init__(self) -> None:
        if self.settings.chunk < 1 or self.settings.shard % self.settings.chunk:
            raise ToolRefused(
                f"shards of {self.settings.shard} documents cannot be made of chunks of {self.settings.chunk}: "
                "choose a multiple, so that no value depends on the shards"
            )
        if len({kind.name for kind in self.kinds}) < len(self.kinds):
            raise ValueError("two parts of an index have one name")


class Reader(Protocol):
    """What is asked of a target while a chunk is read."""

    @property
    def spec(self) -> ModelSpec: ...

    def run(
        self,
        ids: torch.Tensor,
        *,
        read: Collection[Site] = (),
        start: tuple[int, torch.Tensor] | None = None,
        stop: int | None = None,
    ) -> Run:
        """As TargetModel.run."""
        ...


def make_shard(
    target: TargetModel,
    groups: Groups,
    number: int,
    sweep: Sweep,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Arrays]:
    """The arrays of shard `number` by part: what is known after its documents, which are groups number · shard and on.

    Reads no other text and no disk, and depends on the arguments alone. progress(n) counts documents.
    """
    summaries = {kind.name: kind.empty(sweep.settings) for kind in sweep.kinds}
    done = 0
    for chunk in chunks_of(target, groups, number, sweep):
        add_chunk(target, chunk, sweep.kinds, summaries)
        done += len(chunk.groups)
        if progress is not None:
            progress(done)
    return {name: summary.arrays() for name, summary in summaries.items()}


def chunks_of(target: TargetModel, groups: Groups, number: int, sweep: Sweep) -> Iterator[Chunk]:
    """The chunks of shard `number`, in order."""
    settings = sweep.settings
    for at in range(0, len(groups), settings.chunk):
        part = groups[at : at + settings.chunk]
        yield Chunk.of(target, part, (number * settings.shard + at) // settings.chunk, sweep.drawn)


@torch.inference_mode()
def add_chunk(target: Reader, chunk: Chunk, kinds: Sequence[Kind], into: Mapping[str, Summary]) -> None:
    """Adds a chunk that was not added before. Special tokens and padding are left out."""
    layers: dict[int, list[tuple[Kind, Collector]]] = {}
    for kind in sorted(kinds, key=lambda one: one.layer):
        layers.setdefault(kind.layer, []).append((kind, kind.collect(chunk, into[kind.name])))
    for batch in batches(chunk, target.spec):
        for collector, part, read in _read(target, batch, layers):
            collector.take(part, read)
    for collectors in layers.values():
        for _, collector in collectors:
            collector.finish()


def batches(chunk: Chunk, spec: ModelSpec) -> Iterator[Batch]:
    """Windows that hold anything to score, of similar length, at most `BATCH_TOKENS` tokens with padding at a time.

    Depends on the text and the model alone, not on what is read: other windows beside it change the last bits of a value.
    """
    tokens = chunk.tokens
    order = np.argsort(-tokens.lengths, kind="stable")
    order = order[np.any(tokens.scored, axis=1)[order]]
    while len(order):
        width = int(tokens.lengths[order[0]])
        size = max(1, min(BATCH_TOKENS // width, CELL_BYTES // (4 * spec.n_heads * width**2)))
        yield Batch(chunk, order[:size], tokens.scored[order[:size], :width])
        order = order[size:]


def _read(
    target: Reader, batch: Batch, layers: Mapping[int, list[tuple[Kind, Collector]]]
) -> Iterator[tuple[Collector, Batch, Read]]:
    """Who takes what is read of a batch, layer by layer."""
    ids = ids_of(batch)
    start: tuple[int, torch.Tensor] | None = None
    for both, ends in _together(layers, ids.shape):
        here = [kind for kind, _ in both]
        last, goes_on = here[-1].layer, ends and here[-1].layer < max(layers)
        sites = [site for kind in here if kind.tokens_at_once is None for site in kind.sites]
        sites += [Site("resid_pre", kind.layer) for kind in here if kind.tokens_at_once is not None]
        sites += [Site("resid_post", last)] if goes_on else []
        sites += always_read(batch.width, last)
        read = target.run(ids, read=dict.fromkeys(sites), start=start, stop=last + 1).read
        start = (last + 1, read[Site("resid_post", last)]) if goes_on else start
        for kind, collector in both:
            if kind.tokens_at_once is not None:
                yield from _few_at_once(target, batch, kind, collector, read[Site("resid_pre", kind.layer)])
            else:
                yield collector, batch, {site: read.pop(site) for site in kind.sites}


def always_read(width: int, layer: int) -> list[Site]:
    """Of short windows attention that hands out its pattern differs in the last bits: all passes use it."""
    return [Site("pattern", layer)] if width <= SHORT else []


def _few_at_once(
    target: Reader, batch: Batch, kind: Kind, collector: Collector, residual: torch.Tensor
) -> Iterator[tuple[Collector, Batch, Read]]:
    """The layer that a dictionary reads is run once more, some windows at a time: all features of a batch at once would take
    too much memory."""
    ids, size = ids_of(batch), max(1, (kind.tokens_at_once or BATCH_TOKENS) // batch.width)
    for at in range(0, len(ids), size):
        rows = slice(at, at + size)
        sites = [*kind.sites, *always_read(batch.width, kind.layer)]
        read = target.run(ids[rows], read=sites, start=(kind.layer, residual[rows]), stop=kind.layer + 1).read
        yield collector, Batch(batch.chunk, batch.windows[rows], batch.scored[rows]), read


Collected = list[tuple[Kind, Any]]


def _together(layers: Mapping[int, Collected], shape: Sequence[int]) -> Iterator[tuple[Collected, bool]]:
    """What is read in one pass, in order of the layers, as much as fits into READ_BYTES, and whether its last layer ends with it:
    a layer that does not fit (of many experts) is run several times."""
    group: Collected = []
    held = 0

    def size(kind: Kind) -> int:
        a_token, a_pair = kind.bytes_a_cell
        return shape[0] * shape[1] * (a_token + shape[1] * a_pair)

    for both in layers.values():
        whole = sum(size(kind) for kind, _ in both)
        if group and held + whole > READ_BYTES:
            yield group, True
            group, held = [], 0
        for kind, collector in both:
            if group and held + size(kind) > READ_BYTES:
                yield group, False
                group, held = [], 0
            group.append((kind, collector))
            held += size(kind)
    if group:
        yield group, True


def ids_of(batch: Batch) -> torch.Tensor:
    """(n, pos) int64, padding replaced by a valid token."""
    ids: NDArray[np.int32] = batch.chunk.tokens.ids[batch.windows, : batch.width]
    return torch.from_numpy(np.where(ids == PAD, 0, ids).astype(np.int64))
