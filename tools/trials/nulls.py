"""What chance does: other neurons of the layer under the same claim, and the best of many claims on null units."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import FiringRule, fast_f1, firing_rule
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.registry import Array, ToolContext
from neuronaut.tools.stats import Ranking
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.dealt import SMOOTH, dealt
from neuronaut.tools.units import Unit

N_RANDOM_UNITS = 32
N_NULL_UNITS = 40


class OtherUnits(NamedTuple):
    """Neurons of one layer, drawn by its number, and their firing rules from explore text; None for one without."""

    indices: Array
    rules: tuple[FiringRule | None, ...]

    def without(self, index: int) -> "OtherUnits":
        """N_RANDOM_UNITS of them that are not neuron `index`."""
        kept = np.flatnonzero(self.indices != index)[:N_RANDOM_UNITS]
        return OtherUnits(self.indices[kept], tuple(self.rules[i] for i in kept))


def comparison_indices(d_mlp: int, layer: int) -> Array:
    """The neurons that others of a layer are compared with, in rising order: the same ones in every run."""
    return np.sort(np.random.default_rng(layer).permutation(d_mlp)[: N_RANDOM_UNITS + 1])


def other_units(context: ToolContext, unit: Unit) -> OtherUnits:
    """The comparison neurons of the unit's layer and sign; their explore text is read in one pass with the unit's, for
    both signs."""
    memo: dict[tuple[int, int], OtherUnits] = context.__dict__.setdefault("_other_units", {})
    if (unit.layer, unit.sign) not in memo:
        indices = comparison_indices(context.target.spec.d_mlp, unit.layer)
        values = context.activations_beside(unit, indices, "explore", n_tokens=EXPLORE_TOKENS)
        tokens = context.sample("explore", EXPLORE_TOKENS)
        for sign in (unit.sign, -unit.sign):
            found = [firing_rule(unit.sign * sign * row, tokens) for row in values]
            memo[unit.layer, sign] = OtherUnits(indices, tuple(None if isinstance(r, str) else r for r in found))
    return memo[unit.layer, unit.sign].without(unit.index)


def f1_of_others(context: ToolContext, unit: Unit, claim: Predicate, block: int) -> Array:
    """(n,) F1 of the claim for other neurons of the layer on a confirm block, each by its own rule from explore text; 0
    for one that never fires."""
    others, tokens = other_units(context, unit), context.tokens("confirm", block)
    values = context.activations_beside(unit, others.indices, "confirm", block=block)
    held, found = holds(claim, tokens)[tokens.scored], np.zeros(len(values))
    for i, (activations, rule) in enumerate(zip(values, others.rules, strict=True)):
        if rule is not None:
            flat = activations[tokens.scored].astype(np.float64)
            fires = flat > rule.threshold
            found[i] = fast_f1(held[None], fires, np.where(fires, flat - rule.median, 0.0))[0]
    return found


def selection_null(
    claim: Predicate, tried: Sequence[Predicate], activations: Array, tokens: Tokens, seed: int
) -> float:
    """The average precision that a claim must exceed: the 95th percentile, over null units, of the best predicate tried.

    On a null unit a predicate gets its base rate, which is nearly 1 where it nearly always holds: the best is the one
    furthest above its own base rate, and the answer is as far above the claim's.
    Null units have the unit's values, dealt out by a hash of the last tokens, half of them smoothed. Their best is taken
    on the text that scores the claim, which favours the null: the claim was chosen on other text.
    """
    masks = np.stack([holds(p, tokens)[tokens.scored] for p in dict.fromkeys([claim, *tried])])
    base, values, best = masks.mean(axis=1), np.sort(activations[tokens.scored]), []
    for number in range(N_NULL_UNITS):
        null = dealt(values, tokens.ids, seed * N_NULL_UNITS + number, smooth=SMOOTH if number % 2 else 1)
        found = Ranking(null[tokens.scored].astype(np.float64)).average_precisions(masks)
        best.append(float((found - base).max()))
    return min(1.0, float(base[0] + np.quantile(best, 0.95)))
