"""Whether a claim of a planted rule could be proved."""

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals.truths import Bools, Truth, truth_f1
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import count, firing_rule
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import complexity
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.modes import lowered, mode_rules

MIN_PLACES = 40  # in each confirm block
MAX_RATE = 0.25  # above it a unit is dense and has no firing rule
MIN_SCORE = 0.8  # precision and coverage of the truth itself
RIVAL_F1 = 0.9  # a simpler rule may reach so much of the truth
MIN_MODE = 0.08  # share of the firing mass of each mode
TOP = 100  # largest activations, among which a weak mode does not show
NEAREST = (0.8, 0.97)  # F1 of the nearest predicate to a truth outside the language


def inadmissible(truth: Truth, context: ToolContext, seed: int) -> str | None:
    """Why no test could be expected to prove the rule; None where it could.

    Asked for: 40 places in each confirm block, at most a quarter of all places, precision and coverage of the truth
    itself at least 0.8, and at most 0.9 of F1 for each simpler rule: a part of it, or the best token set of fewer items.
    Of modes the same of each where no stronger one holds; of a truth outside the language, a predicate that comes near.
    """
    if isinstance(truth.predicate, nodes.Modes):
        reason = _inadmissible_modes(truth.predicate, context)
    else:
        reason = _inadmissible_rule(truth.predicate, context)
    if reason is not None:
        return reason
    if truth.twist is not None and not NEAREST[0] <= truth.nearest(context.tokens("design")) <= NEAREST[1]:
        return "no predicate comes near, or one says it all"
    explore = context.sample("explore", EXPLORE_TOKENS)
    activations = truth.planted(seed)(explore)
    if isinstance(truth.predicate, nodes.Modes) and _weakest_shows(truth.predicate, activations, explore):
        return "the weakest mode shows among the largest activations"
    rule = firing_rule(activations, explore)
    if isinstance(rule, str):
        return rule
    if isinstance(truth.predicate, nodes.Modes):
        rule = lowered(rule, mode_rules(truth.predicate, activations, explore, rule))
    counts = count(truth.holds(explore), activations, explore, rule)
    _, precision, coverage = counts.scores(np.ones((1, len(counts.documents))))
    return None if min(precision[0], coverage[0]) >= MIN_SCORE else "the noise hides it"


def _inadmissible_rule(predicate: Predicate, context: ToolContext) -> str | None:
    design = context.tokens("design")
    held = holds(predicate, design)
    if not 0 < held[design.scored].mean() <= MAX_RATE:
        return "too common or absent"
    if any(holds(predicate, context.tokens("confirm", block)).sum() < MIN_PLACES for block in range(3)):
        return "too rare for a confirm block"
    for part in parts(predicate):
        if truth_f1(holds(part, design), held) > RIVAL_F1:
            return "a part of it says nearly as much"
    if not isinstance(predicate, nodes.Token) and best_tokens(held, design, complexity(predicate) - 2) > RIVAL_F1:
        return "a simpler token set says nearly as much"
    return None


def _inadmissible_modes(modes: nodes.Modes, context: ToolContext) -> str | None:
    design = context.tokens("design")
    if not holds(modes, design)[design.scored].mean() <= MAX_RATE:
        return "too common or absent"
    for block in range(3):
        tokens = context.tokens("confirm", block)
        if min(own.sum() for own in own_places(modes, tokens)) < MIN_PLACES:
            return "too rare for a confirm block"
    mass = np.array([own.sum() * mode.strength for own, mode in zip(own_places(modes, design), modes.of, strict=True)])
    if mass.min() < MIN_MODE * mass.sum():
        return "a mode is too small a part"
    for mode in modes.of:
        if (reason := _inadmissible_rule(mode.predicate, context)) is not None:
            return reason
    return None


def own_places(modes: nodes.Modes, tokens: Tokens) -> list[Bools]:
    """For each mode the places at which no stronger one holds."""
    found, taken = [], np.zeros(tokens.ids.shape, dtype=bool)
    for mode in sorted(modes.of, key=lambda one: -one.strength):
        held = holds(mode.predicate, tokens)
        found.append(held & ~taken)
        taken = taken | held
    return found


def _weakest_shows(modes: nodes.Modes, activations: NDArray[np.float32], tokens: Tokens) -> bool:
    """Whether one of the TOP largest activations is the weakest mode's."""
    flat, weakest = activations[tokens.scored], own_places(modes, tokens)[-1][tokens.scored]
    return bool(weakest[np.argsort(-flat, kind="stable")[:TOP]].any())


def parts(predicate: Predicate) -> list[Predicate]:
    """The simpler rules inside a conjunction: each part alone, and each rest without one part."""
    if not isinstance(predicate, nodes.AllOf):
        return []
    rests = [tuple(p for p in predicate.of if p != part) for part in predicate.of]
    return [*predicate.of, *(nodes.AllOf(of=rest) for rest in rests if len(rest) > 1)]


def best_tokens(held: Bools, tokens: Tokens, n: int) -> float:
    """The largest F1 that a set of at most `n` current tokens has against the truth."""
    size = len(tokens.vocabulary.pieces)
    places = np.bincount(tokens.ids[tokens.scored], minlength=size)
    both = np.bincount(tokens.ids[held & tokens.scored], minlength=size)
    best = 0.0
    for order in (np.argsort(-both / np.maximum(places, 1), kind="stable"), np.argsort(-both, kind="stable")):
        covered, said = np.cumsum(both[order][: max(n, 0)]), np.cumsum(places[order][: max(n, 0)])
        best = max(best, float((2 * covered / (said + held.sum())).max(initial=0.0)))
    return best
