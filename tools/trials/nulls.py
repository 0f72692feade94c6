"""What chance does: other neurons of the layer under the same claim, and the best of many claims on null units."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import FiringRule, fast_f1, firing_rule
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.registry import Array, ToolContext
from neuronaut.tools.stats import Ranking
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.sites import site_of, width_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.dealt import LAST, SMOOTH, picked, recent_keys, shares
from neuronaut.tools.units import Unit

N_RANDOM_UNITS = 32
N_NULL_UNITS = 40
FEATURE_CANDIDATES = 160  # of which a dictionary should have 33 that fire


class OtherUnits(NamedTuple):
    """Neurons of one layer, drawn by its number, or features of one dictionary, and their firing rules from explore text;
    None for one without. Features that have none come last: most of a large dictionary hardly ever fire."""

    indices: Array
    rules: tuple[FiringRule | None, ...]

    def without(self, index: int) -> "OtherUnits":
        """N_RANDOM_UNITS of them that are not number `index`."""
        kept = np.flatnonzero(self.indices != index)[:N_RANDOM_UNITS]
        return OtherUnits(self.indices[kept], tuple(self.rules[i] for i in kept))


def comparison_indices(d_mlp: int, layer: int) -> Array:
    """The neurons that others of a layer are compared with, in rising order: the same ones in every run."""
    return np.sort(np.random.default_rng(layer).permutation(d_mlp)[: N_RANDOM_UNITS + 1])


def candidates(target: TargetModel, site: Site) -> Array:
    """The units of a site, in rising order, among which those are found that others are compared with."""
    if site.name == "features":
        width = width_of(target, site)
        return np.sort(np.random.default_rng(site.layer).permutation(width)[:FEATURE_CANDIDATES])
    return comparison_indices(width_of(target, site), site.layer)


def other_units(context: ToolContext, unit: Unit) -> OtherUnits:
    """The comparison units of the unit's site and sign; their explore text is read in one pass with the unit's, for both
    signs."""
    return candidate_units(context, unit).without(unit.index)


def candidate_units(context: ToolContext, unit: Unit) -> OtherUnits:
    """All candidates of the unit's site with their rules, the unit perhaps among them."""
    memo: dict[tuple[Site, int], OtherUnits] = context.__dict__.setdefault("_other_units", {})
    site = site_of(context.target, unit)
    if (site, unit.sign) not in memo:
        indices = candidates(context.target, site)
        values = context.activations_beside(unit, indices, "explore", n_tokens=EXPLORE_TOKENS)
        tokens = context.sample("explore", EXPLORE_TOKENS)
        for sign in (unit.sign, -unit.sign):
            found = [firing_rule(unit.sign * sign * row, tokens) for row in values]
            rules = [None if isinstance(rule, str) else rule for rule in found]
            order = list(range(len(rules)))
            if site.name == "features":
                order.sort(key=lambda i: rules[i] is None)
            memo[site, sign] = OtherUnits(indices[order], tuple(rules[i] for i in order))
    return memo[site, unit.sign]


def f1_of_others(context: ToolContext, unit: Unit, claim: Predicate, block: int) -> Array:
    """(n,) F1 of the claim for other neurons of the layer (features of the dictionary) on a confirm block, each by its own rule from explore text; 0
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


def _null_orders(tokens: Tokens, seed: int) -> list[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    """For each null unit the scored places from its largest value down, and how far along the values each is. They are the
    same whatever values are dealt; those of the last seed are kept with the text."""
    memo: dict[int, list[tuple[NDArray[np.int32], NDArray[np.float64]]]] = tokens.__dict__.setdefault("_nulls", {})
    if seed not in memo:
        memo.clear()
        keys, found = recent_keys(tokens.ids, LAST), []
        for number in range(N_NULL_UNITS):
            share = shares(keys, seed * N_NULL_UNITS + number, smooth=SMOOTH if number % 2 else 1)[tokens.scored]
            order = np.argsort(-share, kind="stable").astype(np.int32)
            found.append((order, share[order]))
        memo[seed] = found
    return memo[seed]


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
    for order, share in _null_orders(tokens, seed):
        found = Ranking.known(order, picked(values, share)).average_precisions(masks)
        best.append(float((found - base).max()))
    return min(1.0, float(base[0] + np.quantile(best, 0.95)))
