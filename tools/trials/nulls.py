"""What chance does: other neurons of the layer under the same claim, and the best of many claims on a shifted unit."""

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
from neuronaut.tools.units import Unit

N_RANDOM_UNITS = 32
N_SHIFTS = 20
MIN_SHIFT = 200  # tokens; far enough for the shifted activation to stand in other text


class OtherUnits(NamedTuple):
    """Neurons of one layer, drawn by its number, and their firing rules from explore text; None for one without."""

    indices: Array
    rules: tuple[FiringRule | None, ...]

    def without(self, index: int) -> "OtherUnits":
        """N_RANDOM_UNITS of them that are not neuron `index`."""
        kept = np.flatnonzero(self.indices != index)[:N_RANDOM_UNITS]
        return OtherUnits(self.indices[kept], tuple(self.rules[i] for i in kept))


def other_units(context: ToolContext, unit: Unit) -> OtherUnits:
    """The comparison neurons of the unit's layer and sign; their explore text is read in one pass with the unit's."""
    memo: dict[tuple[int, int], OtherUnits] = context.__dict__.setdefault("_other_units", {})
    key = (unit.layer, unit.sign)
    if key not in memo:
        n = context.target.spec.d_mlp
        indices = np.sort(np.random.default_rng(unit.layer).permutation(n)[: N_RANDOM_UNITS + 1])
        values = context.activations_beside(unit, indices, "explore", n_tokens=EXPLORE_TOKENS)
        tokens = context.sample("explore", EXPLORE_TOKENS)
        found = [firing_rule(row, tokens) for row in values]
        memo[key] = OtherUnits(indices, tuple(None if isinstance(rule, str) else rule for rule in found))
    return memo[key].without(unit.index)


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


def selection_null(predicates: Sequence[Predicate], activations: Array, tokens: Tokens, seed: int) -> float:
    """95th percentile, over null units, of the best average precision among all predicates that the search tried.

    A null unit is the activation moved along the text: same values, same runs, no relation to the tokens. Its best is
    taken on the text that scores the claim, which favours the null: the claim was chosen on other text.
    """
    masks = np.stack([holds(p, tokens)[tokens.scored] for p in dict.fromkeys(predicates)])
    ranking, best = Ranking(activations[tokens.scored].astype(np.float64)), []
    rng = np.random.default_rng(seed)
    for _ in range(N_SHIFTS):
        by = int(rng.integers(MIN_SHIFT, max(MIN_SHIFT + 1, tokens.n_scored - MIN_SHIFT)))
        best.append(max(map(ranking.average_precision, np.roll(masks, -by, axis=1))))
    return float(np.quantile(best, 0.95))
