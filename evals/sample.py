"""Natural neurons to ask about, drawn alike from all layers, and how many of them get a claim of some size."""

from collections.abc import Sequence

import numpy as np

from neuronaut.evals.loop import supported
from neuronaut.evals.suite import Row, Score, share
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.look.activations import layer_activations
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

SIZES = (5, 20, 100)  # items


def live_units(context: ToolContext, layer: int) -> list[Unit]:
    """The neurons of a layer that have a firing rule on the explore sample (active in at least 20 documents)."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    everyone = np.arange(context.target.spec.d_mlp)
    values = layer_activations(context.target, layer, everyone, tokens)
    alive = [not isinstance(firing_rule(activations, tokens), str) for activations in values]
    return [Unit("neuron", layer, int(i)) for i in everyone[alive]]


def live_sample(target: TargetModel, corpus: Corpus, n: int, seed: int) -> list[Unit]:
    """`n` live neurons (with a firing rule on the explore sample), equally many from each layer, in turn; fewer if there
    are not so many. A smaller sample of a seed is the beginning of a larger one."""
    layers = range(target.spec.n_layers)
    share = -(-n // len(layers))
    orders = [np.random.default_rng([seed, layer]).permutation(target.spec.d_mlp) for layer in layers]
    live: list[list[Unit]] = [[] for _ in layers]
    step = 2 * share + 4
    for at in range(0, target.spec.d_mlp, step):
        lacking = [layer for layer in layers if len(live[layer]) < share]
        if not lacking:
            break
        units = [Unit("neuron", layer, int(i)) for layer in lacking for i in orders[layer][at : at + step]]
        context = BatchContext(target, corpus, units=tuple(units))
        tokens = context.sample("explore", EXPLORE_TOKENS)
        for unit in units:
            if not isinstance(firing_rule(context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS), tokens), str):
                live[unit.layer].append(unit)
    return [live[layer][turn] for turn in range(share) for layer in layers if turn < len(live[layer])][:n]


def small_claims(rows: Sequence[Row], who: str = "units") -> list[Score]:
    """The share of units with a SUPPORTED claim of at most 5, 20 and 100 items."""
    items = [min((claim["items"] for claim in supported(row)), default=None) for row in rows]
    return [
        share(
            f"{who} with a SUPPORTED claim of at most {n} items",
            sum(i is not None and i <= n for i in items),
            len(rows),
        )
        for n in SIZES
    ]
