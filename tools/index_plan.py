"""What an index needs, and its shards, made one after the other or anywhere."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from neuronaut.tools.corpus import Corpus, Document, tokens_of
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.files import cache_folder
from neuronaut.tools.kinds.base import IndexSettings, Kind
from neuronaut.tools.kinds.features import Features
from neuronaut.tools.kinds.heads import Heads
from neuronaut.tools.kinds.neurons import Neurons
from neuronaut.tools.shards import ShardStore, about_index, key_of
from neuronaut.tools.sweep import Sweep, make_shard
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.sites import neuron_sites

KindName = Literal["neurons", "heads", "features"]
KINDS: tuple[KindName, ...] = get_args(KindName)
NEURONS: tuple[KindName, ...] = ("neurons",)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What an index needs: the sweep, the folder, and shards that are not there. Ray tasks or processes may each make one."""

    target: TargetModel = field(repr=False)
    corpus: Corpus = field(repr=False)
    sweep: Sweep
    store: ShardStore

    @property
    def n_shards(self) -> int:
        """Shards of each part."""
        return self.store.n_shards

    def missing(self, number: int) -> tuple[Kind, ...]:
        """Parts of which shard `number` is not there or damaged."""
        return tuple(kind for kind in self.sweep.kinds if self.store.state(kind.name, number) != "done")

    def groups(self, number: int) -> list[list[Document]]:
        """The documents of a shard, near-duplicates together."""
        size = self.store.settings.shard
        wanted = np.unique(self.corpus.groups("explore"))[number * size : (number + 1) * size]
        return _grouped(self.corpus, set(wanted.tolist()))


def _grouped(corpus: Corpus, wanted: Collection[int]) -> list[list[Document]]:
    return [list(group) for _, group in groupby(corpus.in_groups("explore", wanted), key=lambda one: one.group)]


def plan_index(
    target: TargetModel,
    corpus: Corpus,
    *,
    kinds: Collection[KindName] = NEURONS,
    layers: Sequence[int] | None = None,
    cache: Path | None = None,
    settings: IndexSettings | None = None,
) -> Plan:
    """The parts of an index: neurons and heads of `layers` (all), features of the dictionaries that the target has there.

    Refuses: layers that the target lacks; features of a target without dictionaries; no kind at all.
    """
    spec, settings = target.spec, settings or IndexSettings()
    chosen = tuple(range(spec.n_layers)) if layers is None else tuple(sorted(set(layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= spec.n_layers:
        raise ToolRefused(f"layers {list(chosen)} cannot be indexed: {spec.name} has layers 0 to {spec.n_layers - 1}")
    parts: list[Kind] = []
    if "neurons" in kinds:
        sites = [site for layer in chosen for site in neuron_sites(spec, layer)]
        parts += [Neurons(site.layer, spec.d_mlp, site.expert) for site in sites]
    if "heads" in kinds:
        parts += [Heads(layer, spec.n_heads) for layer in chosen]
    if "features" in kinds:
        parts += _dictionaries(target, chosen)
    if not parts or set(kinds) - set(KINDS):
        raise ToolRefused(f"{', '.join(sorted(kinds)) or 'nothing'} cannot be indexed: choose from {', '.join(KINDS)}")
    about = about_index(target, corpus, settings)
    store = ShardStore((cache or cache_folder()) / key_of(about), about)
    return Plan(target, corpus, Sweep(tuple(parts), _drawn(target, corpus, settings), settings), store)


def _dictionaries(target: TargetModel, layers: Collection[int]) -> list[Kind]:
    found: list[Kind] = [
        Features(name, features_key(one), one.layer, one.width)
        for name, one in target.dictionaries.items()
        if one.layer in layers
    ]
    if not found:
        raise ToolRefused("there are no features to index: name a dictionary of these layers with --dictionary")
    return found


def features_key(dictionary: Dictionary) -> str:
    """What tells a dictionary from all others: the hash of its files, of its weights where it was made here."""
    if dictionary.sha256:
        return dictionary.sha256
    found = hashlib.sha256(repr(dictionary.layout).encode())
    for name, weight in sorted(dictionary.weights.items()):
        found.update(name.encode() + weight.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def _drawn(target: TargetModel, corpus: Corpus, settings: IndexSettings) -> int:
    """Tokens of smaller priority go into histograms: estimated from the first chunk, so that every run agrees."""
    numbers = np.unique(corpus.groups("explore"))[: settings.chunk]
    pilot = [one for group in _grouped(corpus, set(numbers.tolist())) for one in group]
    length = sum(len(one.text) for one in pilot)
    n_tokens = tokens_of(target, pilot).n_scored * int(corpus.characters("explore").sum()) / max(1, length)
    return min(2**64 - 1, int(settings.binned_tokens / max(1.0, n_tokens) * 2**64))


def build_shards(plan: Plan, numbers: Sequence[int] | None = None, *, progress: Progress | None = None) -> None:
    """Makes the shards that are not there, of all or of some numbers; what is there is read once and kept.

    progress(done, total) counts documents. A shard is stored when it is complete, so that a crash costs one.
    """
    size, n = plan.store.settings.shard, int(plan.store.about["documents"])
    chosen = list(range(plan.n_shards)) if numbers is None else list(numbers)
    total = sum(min(size, n - number * size) for number in chosen)
    done = 0
    for number in chosen:
        if missing := plan.missing(number):
            for kind in missing:
                plan.store.load(kind.name, number)  # so that damage is noted
            sweep = Sweep(missing, plan.sweep.drawn, plan.sweep.settings)
            before = done
            step = None if progress is None else (lambda at, before=before: progress(before + at, total))
            made = make_shard(plan.target, plan.groups(number), number, sweep, progress=cast(Any, step))
            for name, arrays in made.items():
                plan.store.save(name, number, arrays)
        done += min(size, n - number * size)
        if progress is not None:
            progress(done, total)
