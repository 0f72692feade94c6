"""An index of a model of which one layer is in memory at a time: each layer is run over all text before the next one is read."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, inference_mode

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.index_plan import Plan, Progress
from neuronaut.tools.kinds.base import Chunk, Kind
from neuronaut.tools.sweep import add_chunk, always_read, batches, chunks_of, ids_of
from neuronaut.tools.tape import Tape
from neuronaut.tools.targets.base import ModelSpec, Run, Site
from neuronaut.tools.targets.streamed import StreamedTarget

TAPE_BYTES = 16 << 30  # of residual stream, which the disk holds twice
TEXT_BYTES = 256 << 20  # of tokens in memory
TOKEN_BYTES = 40  # ids, offsets and priority of a token, its characters
Shards = dict[int, list[Chunk]]
Step = Callable[[int], None]  # so many documents went through one more layer


def stream_shards(plan: Plan, numbers: Sequence[int] | None = None, *, progress: Progress | None = None) -> None:
    """As `build_shards`, of a StreamedTarget and with the same bits: a layer is run over as many shards as fit before the next one
    is read, so that the files of the model are read once.

    progress(done, total) counts documents times layers. A shard of a layer is stored when it is complete. What a layer leaves lies
    on disk until the end, so that a crash costs the layer in hand. Refuses features, and a full disk.
    """
    target = plan.target
    assert isinstance(target, StreamedTarget)
    chosen = range(plan.n_shards) if numbers is None else numbers
    missing = {number: plan.missing(number) for number in chosen}
    everything = [kind for kinds in missing.values() for kind in kinds]
    if any(kind.tokens_at_once is not None for kind in everything):
        raise ToolRefused("features cannot be indexed with --stream: leave it out, or index neurons and heads")
    if not everything:
        return
    for number, kinds in missing.items():
        for kind in kinds:
            plan.store.load(kind.name, number)  # so that damage is noted
    size, n = plan.store.settings.shard, int(plan.store.about["documents"])
    stop = max(kind.layer for kind in everything) + 1
    total = stop * sum(min(size, n - number * size) for number in chosen)
    done = 0

    def step(documents: int) -> None:
        nonlocal done
        done += documents
        if progress is not None:
            progress(done, total)

    for shards in _passes(plan, chosen):
        wanted = {number: missing[number] for number in shards}
        if any(wanted.values()):
            _stream(plan, target, shards, wanted, stop, step)
        else:
            step(stop * sum(len(chunk.groups) for chunks in shards.values() for chunk in chunks))


def _passes(plan: Plan, numbers: Sequence[int]) -> Iterator[Shards]:
    """Shards that go through the layers together, as many as fit into the limits, one at least; the same ones whatever is missing, so
    that a pass which was stopped is found again."""
    held: Shards = {}
    cells = 0
    most = min(TAPE_BYTES // (4 * plan.target.spec.d_model), TEXT_BYTES // TOKEN_BYTES)
    for number in numbers:
        chunks = list(chunks_of(plan.target, plan.groups(number), number, plan.sweep))
        more = sum(chunk.tokens.ids.size for chunk in chunks)
        if held and cells + more > most:
            yield held
            held, cells = {}, 0
        held[number] = chunks
        cells += more
    if held:
        yield held


def _stream(
    plan: Plan, target: StreamedTarget, shards: Shards, missing: Mapping[int, Sequence[Kind]], stop: int, step: Step
) -> None:
    """One pass through the layers, from where an earlier one was stopped."""
    about = {**plan.store.about, "shards": list(shards)}
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    first = min(kind.layer for kinds in missing.values() for kind in kinds)
    n_documents = sum(len(chunk.groups) for chunks in shards.values() for chunk in chunks)
    with Tape.at(plan.store.folder.with_name(f"streamed-{name}"), about, target.dtype, first) as tape:
        step(tape.layer * n_documents)
        for layer in range(tape.layer, stop):
            with target.loaded(layer), tape.through(layer, keep=layer + 1 < stop):
                reader = _AtLayer(target, layer, tape)
                for number, chunks in shards.items():
                    _add_shard(
                        plan, reader, number, chunks, [one for one in missing[number] if one.layer == layer], step
                    )
        tape.remove()


def _add_shard(
    plan: Plan, reader: "_AtLayer", number: int, chunks: Sequence[Chunk], kinds: Sequence[Kind], step: Step
) -> None:
    summaries = {kind.name: kind.empty(plan.sweep.settings) for kind in kinds}
    for chunk in chunks:
        if kinds:
            add_chunk(reader, chunk, kinds, summaries)
        else:
            reader.pass_on(chunk)
        step(len(chunk.groups))
    for name, summary in summaries.items():
        plan.store.save(name, number, summary.arrays())


@dataclass
class _AtLayer:
    """Runs one layer: takes what it begins with from the tape, and puts there what it leaves."""

    target: StreamedTarget
    layer: int
    tape: Tape
    _ids: Tensor | None = field(default=None, init=False, repr=False)
    _start: tuple[int, Tensor] | None = field(default=None, init=False, repr=False)

    @property
    def spec(self) -> ModelSpec:
        """The target's."""
        return self.target.spec

    def run(
        self,
        ids: Tensor,
        *,
        read: Collection[Site] = (),
        start: tuple[int, Tensor] | None = None,
        stop: int | None = None,
    ) -> Run:
        """As TargetModel.run. A batch that is read in several runs comes from the tape once."""
        assert start is None
        assert stop == self.layer + 1
        left, new = Site("resid_post", self.layer), ids is not self._ids
        if new:
            shape = (*ids.shape, self.spec.d_model)
            self._ids, self._start = ids, (self.layer, self.tape.next(shape)) if self.layer else None
        found = self.target.run(ids, read=dict.fromkeys([*read, left]), start=self._start, stop=stop)
        if new:
            self.tape.add(found.read[left])
        return found

    @inference_mode()
    def pass_on(self, chunk: Chunk) -> None:
        """Runs a chunk of which nothing is wanted here."""
        for batch in batches(chunk, self.spec):
            self.run(ids_of(batch), read=always_read(batch.width, self.layer), stop=self.layer + 1)
