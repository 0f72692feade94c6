"""What labelling all features of a large model would take, from unit costs measured here: python -m neuronaut.evals.capacity

Measured on `pocket` in this process: a group of neurons of one layer is labelled with `--fast`, and a shard of features is
indexed. The costs of a unit are then scaled to a model of other size: passes over text by parameters and tokens, the rest as it is.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.agent.config import RunConfig
from neuronaut.agent.label.cap import CALLS, TOKENS_IN, TOKENS_OUT
from neuronaut.agent.label.local import GROUP, Contexts, work
from neuronaut.agent.label.screen import Screen, duration
from neuronaut.agent.label.selection import all_units, in_order
from neuronaut.agent.label.work import Bench
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.corpus import MOST_TOKENS, pocket_corpus
from neuronaut.tools.index_plan import KindName, plan_index
from neuronaut.tools.look.examples import LIST_TOKENS
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.sweep import Sweep, make_shard
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target

MIDDLE = 5  # a layer of pocket: about half of the passes are through the layers before it
READ_ONCE = LIST_TOKENS + MOST_TOKENS["design"] + MOST_TOKENS["confirm"]  # of a long text, by a group of units together


@dataclass(frozen=True)
class Unit:
    """What labelling one unit takes. tokens: through all layers, in passes that are its own; seconds: of the processor,
    without any pass; recording: the part of them that the notebook takes; bytes: of the notebook."""

    tokens: float
    seconds: float
    recording: float
    bytes: float


@dataclass(frozen=True)
class Feature:
    """What indexing takes: bytes a feature and shard, processor seconds a feature and token beyond the pass itself."""

    bytes: float
    seconds: float


class Clock:
    """Processor seconds inside of some calls, the outermost ones counted."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            self._depth += 1
            began = time.process_time()
            try:
                return call(*args, **options)
            finally:
                self._depth -= 1
                self.seconds += 0.0 if self._depth else time.process_time() - began

        return timed


def unit_cost(target: TargetModel, n_units: int, seed: int) -> Unit:
    """Of neurons of one layer that are labelled together, none of them null units."""
    corpus = pocket_corpus()
    config = RunConfig(question="capacity", fast=True, loop="fast", seed=seed, labelling={})
    units = in_order(all_units(target, "neuron", [MIDDLE], None), n_units, seed)
    contexts = Contexts.of(ToolContext(target, corpus), seed)
    passes, records = Clock(), Clock()
    for name in ("run", "branches"):
        setattr(target, name, passes.timed(getattr(target, name)))
    explore = contexts.real.tokens("explore")
    with tempfile.TemporaryDirectory() as folder, Notebook(Path(folder) / "n.db") as notebook:
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        empty = sum(path.stat().st_size for path in Path(folder).iterdir())
        notebook.add_items(run, [(unit.address, None, "all") for unit in units])
        for name in ("_insert", "finished", "items_by_id", "rows", "begin_experiment", "end_experiment"):
            setattr(notebook, name, records.timed(getattr(notebook, name)))
        bench = Bench(notebook, config, None, None, lambda _label, _line: None)
        before, began = target.forwards, time.process_time()
        work(bench, run, contexts, Screen(notebook, run, as_json=False))
        seconds = time.process_time() - began
        own = target.forwards - before - contexts.real.shared_forwards
        kept = sum(path.stat().st_size for path in Path(folder).iterdir()) - empty
    a_window = explore.n_scored / len(explore)
    n = len(units)
    return Unit(own * a_window / n, (seconds - passes.seconds) / n, records.seconds / n, kept / n)


def feature_cost(target: TargetModel) -> Feature:
    """Of the features that are shipped with pocket, in the first shard."""
    kinds: tuple[KindName, ...] = ("features",)
    plan = plan_index(target, pocket_corpus(), kinds=kinds)
    (kind,) = plan.sweep.kinds
    groups, passes = plan.groups(0), Clock()
    n_tokens = target.tokenize([one.text for group in groups for one in group]).n_scored
    setattr(target, "run", passes.timed(target.run))  # noqa: B010  a method of a protocol
    began = time.process_time()
    arrays = make_shard(target, groups, 0, Sweep((kind,), plan.sweep.drawn, plan.sweep.settings))[kind.name]
    seconds = time.process_time() - began - passes.seconds
    width = target.dictionaries[next(iter(target.dictionaries))].width
    return Feature(sum(array.nbytes for array in arrays.values()) / width, seconds / width / n_tokens)


def report(unit: Unit, feature: Feature, asked: argparse.Namespace) -> list[str]:
    """The table. A pass over a token takes two operations a parameter."""
    shared = READ_ONCE / GROUP
    a_unit = 2 * asked.parameters * (unit.tokens + shared)
    labelling = a_unit * asked.features / asked.flops
    indexing = 2 * asked.parameters * asked.tokens / asked.flops
    encoding = 2 * asked.d_model * asked.features * asked.tokens / asked.flops
    shards = asked.tokens / asked.tokens_a_shard
    processors = unit.seconds * asked.features
    dollars = (TOKENS_IN * asked.price_in + TOKENS_OUT * asked.price_out) / 1e6 * asked.features
    return [
        f"measured, a unit: {unit.tokens:,.0f} tokens in passes of its own, {unit.seconds:.2f} s of a processor beside passes, "
        f"{unit.recording:.3f} s of them recording, {unit.bytes / 1024:,.0f} KiB of notebook",
        f"measured, a feature: {feature.bytes:,.0f} bytes a shard, {feature.seconds * 1e9:.0f} ns a token beside the pass",
        f"index, passes over {asked.tokens:,.0f} tokens: {duration(indexing)} of an accelerator; encoding all features: "
        f"{duration(encoding)}; collecting: {duration(feature.seconds * asked.features * asked.tokens)} of a processor",
        f"index, size: {feature.bytes * asked.features / 1e9:,.1f} GB a shard, {shards:,.0f} shards: "
        f"{feature.bytes * asked.features * shards / 1e9:,.0f} GB",
        f"labelling, passes: {unit.tokens:,.0f} tokens of its own and {shared:,.0f} shared ({READ_ONCE:,} for {GROUP} units) a unit, "
        f"{duration(a_unit / asked.flops)} of an accelerator; all: {duration(labelling)}",
        f"labelling, search and tests: {duration(processors)} of a processor",
        f"labelling, recording by one process: {duration(unit.recording * asked.features)}, "
        f"{unit.bytes * asked.features / 1e9:,.0f} GB of notebook",
        f"language model: {CALLS * asked.features:,.0f} calls, {TOKENS_IN * asked.features / 1e9:.1f} billion tokens in, "
        f"{TOKENS_OUT * asked.features / 1e9:.1f} billion out: ${dollars:,.0f} at {asked.price_in:g} and {asked.price_out:g} dollars a million",
    ]


def main() -> None:
    """Prints the measured costs and what follows from them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--units", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parameters", type=float, default=70e9)
    parser.add_argument("--d-model", type=float, default=8192)
    parser.add_argument("--features", type=float, default=1e6)
    parser.add_argument("--tokens", type=float, default=1e8, help="of explore text that is indexed")
    parser.add_argument("--tokens-a-shard", type=float, default=1e6)
    parser.add_argument("--flops", type=float, default=4e14, help="operations a second of an accelerator")
    parser.add_argument("--price-in", type=float, default=1.0, help="dollars a million tokens")
    parser.add_argument("--price-out", type=float, default=5.0)
    asked = parser.parse_args()
    unit = unit_cost(load_target("pocket"), asked.units, asked.seed)
    feature = feature_cost(load_target("pocket"))
    print("\n".join(report(unit, feature, asked)))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
