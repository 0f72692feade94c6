"""Model and text of a run, opened in this process or by the workers of a cluster, and their index.

Which worker made a shard of an index shows in none of its bits: workers send the arrays, and this process stores them.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from neuronaut.agent.config import EngineOptions, RunConfig
from neuronaut.agent.engine_ray import Cluster, WorkerDied, cluster
from neuronaut.agent.opening import open_corpus, open_inputs
from neuronaut.agent.remote import Described, Order, Refused, accepted, describe, with_inputs
from neuronaut.agent.session import Say
from neuronaut.agent.view import Progress
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.files import cache_folder
from neuronaut.tools.index_plan import KindName, Plan, build_shards, plan_index
from neuronaut.tools.kinds.base import Arrays
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.shards import ShardStore, key_of
from neuronaut.tools.streaming import stream_shards
from neuronaut.tools.sweep import Sweep, make_shard
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import open_folder
from neuronaut.tools.targets.placement import dtype_of
from neuronaut.tools.targets.streamed import StreamedTarget

Layers = Sequence[int] | None


class Inputs(Protocol):
    """Opened inputs. target: of a model that is elsewhere only what describes it."""

    @property
    def target(self) -> TargetModel: ...

    @property
    def corpus(self) -> Corpus: ...

    def plan(self, kinds: Collection[KindName], layers: Layers = None) -> Plan:
        """As `plan_index`."""
        ...

    def build(self, plan: Plan, numbers: Sequence[int] | None = None, *, progress: Progress | None = None) -> None:
        """As `build_shards`."""
        ...


@contextlib.contextmanager
def opened_inputs(config: RunConfig, options: EngineOptions, say: Say) -> "Iterator[Here | Elsewhere]":
    """The inputs of a run, where the engine computes. Refuses what cannot be opened, here or there."""
    if options.name == "local":
        yield Here(*open_inputs(config, say))
        return
    with joined_cluster(options, say) as joined:
        yield Elsewhere.of(config, joined, say, lambda order: joined.call(describe, order))


@contextlib.contextmanager
def joined_cluster(options: EngineOptions, say: Say) -> Iterator[Cluster]:
    """The cluster that was asked for."""
    where = "this machine" if options.address == "local" else f"the cluster {options.address}"
    processors = "processor" if options.threads == 1 else "processors"
    with cluster(options.address, options.jobs, options.threads) as joined:
        say("ray", f"workers: {options.jobs}, with {options.threads} {processors} each, on {where}")
        yield joined


@dataclass(frozen=True)
class Here:
    """Inputs that are open in this process."""

    target: TargetModel
    corpus: Corpus

    def plan(self, kinds: Collection[KindName], layers: Layers = None) -> Plan:
        """As Inputs says."""
        return plan_index(self.target, self.corpus, kinds=kinds, layers=layers)

    def build(self, plan: Plan, numbers: Sequence[int] | None = None, *, progress: Progress | None = None) -> None:
        """As Inputs says."""
        build_shards(plan, numbers, progress=progress)


@dataclass(frozen=True)
class Streamed:
    """Inputs that are open in this process, but for the layers of the model, which are read one at a time."""

    target: StreamedTarget
    corpus: Corpus

    @classmethod
    def of(cls, config: RunConfig, say: Say) -> "Streamed":
        """The inputs of a run. Refuses a model whose layers cannot be streamed."""
        corpus = open_corpus(config, say)
        say("model", f"opening {config.model}, without its layers")
        folder = open_folder(config.model)
        return cls(StreamedTarget(folder, dtype=dtype_of(config.dtype, folder.config)), corpus)

    def plan(self, kinds: Collection[KindName], layers: Layers = None) -> Plan:
        """As Inputs says."""
        return plan_index(self.target, self.corpus, kinds=kinds, layers=layers)

    def build(self, plan: Plan, numbers: Sequence[int] | None = None, *, progress: Progress | None = None) -> None:
        """As Inputs says; progress counts documents times layers."""
        stream_shards(plan, numbers, progress=progress)


@dataclass(frozen=True)
class Elsewhere:
    """Inputs that workers open. order: what they open; corpus: the same text, opened here."""

    cluster: Cluster
    order: Order
    target: TargetModel
    corpus: Corpus

    @classmethod
    def of(
        cls, config: RunConfig, joined: Cluster, say: Say, asked: Callable[[Order], Described | Refused]
    ) -> "Elsewhere":
        """The inputs of a run. asked: what a worker says of them. Refuses workers without this code, and what they cannot open."""
        order, corpus = Order.of(config), open_corpus(config, say)
        say("model", f"a worker loads {config.model}")
        try:
            found = accepted(asked(order), order)
        except (WorkerDied, ImportError, AttributeError) as error:
            raise UserError(
                f"the workers of the cluster cannot run this code ({str(error).partition(chr(10))[0]}): install the same "
                "neuronaut, and what it needs, on all machines of the cluster"
            ) from None
        found.check_corpus(corpus)
        return cls(joined, order, found.as_target, corpus)

    def plan(self, kinds: Collection[KindName], layers: Layers = None) -> Plan:
        """As Inputs says."""
        sweep, about = accepted(self.cluster.call(planned, self.order, kinds, layers), self.order)
        return Plan(self.target, self.corpus, sweep, ShardStore(cache_folder() / key_of(about), about))

    def build(self, plan: Plan, numbers: Sequence[int] | None = None, *, progress: Progress | None = None) -> None:
        """As Inputs says, one task a shard; a worker that dies costs the shard in hand, which is made again."""
        about, sweep = plan.store.about, plan.sweep
        missing = {number: plan.missing(number) for number in (range(plan.n_shards) if numbers is None else numbers)}
        lacking = [number for number, kinds in missing.items() if kinds]
        for number in lacking:
            for kind in missing[number]:
                plan.store.load(kind.name, number)  # so that damage is noted
        calls = [
            (self.order, Planned(Sweep(missing[number], sweep.drawn, sweep.settings), about), number)
            for number in lacking
        ]
        n, size = int(about["documents"]), sweep.settings.shard
        documents = [min(size, n - number * size) for number in lacking]
        done = 0
        for at, answer in self.cluster.each(made_shard, calls):
            for name, arrays in accepted(answer, self.order).items():
                plan.store.save(name, lacking[at], arrays)
            done += documents[at]
            if progress is not None:
                progress(done, sum(documents))


class Planned(NamedTuple):
    """What an index needs, without model and text: what is read, and what says which index it is."""

    sweep: Sweep
    about: dict[str, Any]


def planned(order: Order, kinds: Collection[KindName], layers: Layers) -> Planned | Refused:
    """The plan of an index, made where the model is."""

    def work(context: ToolContext) -> Planned:
        plan = plan_index(context.target, context.corpus, kinds=kinds, layers=layers)
        return Planned(plan.sweep, plan.store.about)

    return with_inputs(order, work)


def made_shard(order: Order, plan: Planned, number: int) -> dict[str, Arrays] | Refused:
    """The arrays of a shard by part, made where the model is."""

    def work(context: ToolContext) -> dict[str, Arrays]:
        groups = Plan(context.target, context.corpus, plan.sweep, ShardStore(Path(), plan.about)).groups(number)
        return make_shard(context.target, groups, number, plan.sweep)

    return with_inputs(order, work)
