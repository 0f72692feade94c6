"""The modes of a claim about a unit that does several things, each on the strength that it is said to have."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from neuronaut.tools.intervene.pairs import Answers
from neuronaut.tools.look.reads import FiringRule, compare_coverage, count
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Mode, Modes, Predicate
from neuronaut.tools.predicates.tree import leaves
from neuronaut.tools.registry import Array
from neuronaut.tools.tokens import Tokens

MAX_FIRING = 0.01  # share of random places above a mode's own threshold


def own_rule(mode: Mode, claim: Modes, activations: Array, tokens: Tokens, rule: FiringRule) -> FiringRule:
    """The unit's rule with the mode's own threshold t_m, from design text: half way from the unit's median to the median
    where the mode holds and no stronger one does, and so high that at most 1 % of the places outside the claim are above it.

    A mode that holds nowhere there keeps the unit's threshold.
    """
    places = _alone(mode, claim, tokens)
    if not places.any():
        return rule
    half = rule.median + (float(np.median(activations[places])) - rule.median) / 2
    outside = activations[tokens.scored & ~holds(claim, tokens)]
    least = float(np.quantile(outside, 1 - MAX_FIRING)) if len(outside) else half
    return replace(rule, threshold=max(half, least), dense=False)


def mode_rules(claim: Predicate, activations: Array, tokens: Tokens, rule: FiringRule) -> list[FiringRule]:
    """The rule of each mode with its own threshold, from design text; empty for a claim without modes."""
    return [own_rule(mode, claim, activations, tokens, rule) for mode in claim.of] if isinstance(claim, Modes) else []


def lowered(rule: FiringRule, rules: Sequence[FiringRule]) -> FiringRule:
    """The rule that a claim is judged by with its rivals: who says that the unit fires weakly elsewhere lowers the bar to
    the weakest mode's own threshold, for all."""
    return replace(rule, threshold=min([rule.threshold, *(one.threshold for one in rules)]))


def _alone(mode: Mode, claim: Modes, tokens: Tokens) -> Array:
    stronger = [holds(one.predicate, tokens) for one in claim.of if one.strength > mode.strength]
    return holds(mode.predicate, tokens) & ~np.logical_or.reduce([np.zeros(tokens.ids.shape, dtype=bool), *stronger])


def mode_rows(
    claim: Predicate, rules: Sequence[FiringRule], activations: Array, tokens: Tokens, answers: Answers, seed: int
) -> list[dict[str, Any]]:
    """What the verdict asks of each mode, by its own threshold: precision, coverage added to that of the other modes with
    the lower end of its 95 % interval, and the bets of the pairs of its leaves. Empty for a claim without modes."""
    if not isinstance(claim, Modes):
        return []
    parts, rows = leaves(claim), []
    for mode, rule in zip(claim.of, rules, strict=True):
        alone = count(_alone(mode, claim, tokens), activations, tokens, rule)
        rest = [holds(one.predicate, tokens) for one in claim.of if one is not mode]
        others = np.logical_or.reduce([np.zeros(tokens.ids.shape, dtype=bool), *rest])
        whole = count(holds(claim, tokens), activations, tokens, rule)
        added, low, _ = compare_coverage(whole, count(others, activations, tokens, rule), seed=seed)
        mine = {number for number, part in enumerate(parts) if part in leaves(mode.predicate)}
        held = float(alone.held.sum())
        rows.append(
            {
                "claim": str(mode.predicate),
                "precision": float(alone.both.sum()) / held if held else 0.0,
                "added_coverage": added,
                "added_low": low,
                "bets": list(answers.scores(rule, mine)),
            }
        )
    return rows
