"""Units that cannot answer edits, for the metrics alone: real activations shifted along the text, and a dead unit."""

from typing import Any

import numpy as np

from neuronaut.agent.proposers.grammar import search
from neuronaut.memory.judge import MIN_COVERAGE, MIN_PRECISION
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule, score_reads
from neuronaut.tools.predicates.evaluate import strength
from neuronaut.tools.registry import Array, ToolContext
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit


def shifted(activations: Array, tokens: Tokens, seed: int) -> Array:
    """(n_windows, n_pos) the values at the scored places, moved round by a tenth to nine tenths of the text."""
    flat = activations[tokens.scored]
    share = np.random.default_rng(seed).uniform(0.1, 0.9)
    moved = np.zeros_like(activations)
    moved[tokens.scored] = np.roll(flat, round(share * len(flat)))
    return moved


def by_metrics(context: ToolContext, unit: Unit, seed: int, *, dead: bool = False) -> dict[str, Any]:
    """What the search finds for a shifted (or dead) unit on explore text, and its scores on a confirm block.

    passes: whether precision and coverage reach what the verdict rule asks; nothing else is asked of it.
    """
    tokens, later = context.sample("explore", EXPLORE_TOKENS), context.tokens("confirm", 0)
    values = shifted(context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS), tokens, seed)
    if dead:
        values = np.zeros_like(values)
    rule = firing_rule(values, tokens)
    if isinstance(rule, str):
        return {"rule": rule, "passes": False}
    found = search(tokens, values, rule, budget=1, seed=seed)
    if not found:
        return {"rule": None, "predicate": None, "passes": False}
    unseen = shifted(context.activations(unit, "confirm", block=0), later, seed)
    scores = score_reads(strength(found[0].predicate, later), unseen, later, rule, seed=seed)
    passes = scores.precision_low >= MIN_PRECISION and scores.coverage_low >= MIN_COVERAGE
    f1 = scores.measurements["f1"].value
    return {"rule": None, "predicate": str(found[0].predicate), "f1": f1, "passes": bool(passes)}
