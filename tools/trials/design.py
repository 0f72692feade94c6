"""Hypotheses compared on design text before any is registered: scores, and edits that show which leaves are idle."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from neuronaut.tools.intervene.pairs import ROUNDS, Enough, spend_pairs
from neuronaut.tools.look.reads import FiringRule, count, f1_of, lower_bound
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.edits import Source
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json, complexity, leaves, predicate_from_json
from neuronaut.tools.registry import Array, ToolContext, ToolResult, tool
from neuronaut.tools.stats import document_weights
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.modes import lowered, mode_rules
from neuronaut.tools.trials.reads import UnitArgs, edit_source, needed_rule
from neuronaut.tools.units import Unit

IDLE_E = 8.0  # a leaf whose edits earn less is idle; one that does nothing earns so much in one of eight cases at most
ENOUGH = Enough(leaf=IDLE_E, whole=IDLE_E, pairs=40)
WORTH_EDITING = 0.2  # F1, and
NEAR_THE_BEST = 0.7  # of the best F1: a predicate below has little prospect, so that its edits are saved
MOST_COMPARED = 64


class CompareArgs(UnitArgs):
    """The neuron and the predicates (JSON) to compare; rounds: of pairs of edits, none where they are only scored."""

    predicates: tuple[str, ...] = Field(min_length=1, max_length=MOST_COMPARED)
    rounds: int = Field(default=len(ROUNDS), ge=0, le=len(ROUNDS))


@tool("compare_on_design", opens_test_text=True)
def compare_on_design(context: ToolContext, args: CompareArgs) -> ToolResult:
    """F1, precision and coverage of each predicate on design text, with lower bounds over documents; e-value of the edits of
    each leaf there.

    A claim of modes is scored by the threshold of its weakest mode.
    Where edits of a leaf move nothing, the predicate without it joins the rows: `origin` is the index in `predicates` of
    the one it came from. idle: share of the leaves whose edits told nothing; null where no edits were made.
    """
    unit = Unit.parse(args.unit)
    rule, tokens = needed_rule(context, unit), context.tokens("design")
    activations = context.activations(unit, "design")
    source = edit_source(context, tokens)
    waiting = [(at, predicate_from_json(one)) for at, one in enumerate(args.predicates)]
    best = max(_scores(one, activations, tokens, rule)["f1"] for _, one in waiting)
    rows: dict[str, dict[str, Any]] = {}
    while waiting:
        origin, predicate = waiting.pop(0)
        key = canonical_json(predicate)
        if key in rows:
            continue
        row = {"predicate": key, "origin": origin, "complexity": complexity(predicate), "idle": None}
        own = lowered(rule, mode_rules(predicate, activations, tokens, rule))
        rows[key] = row | _scores(predicate, activations, tokens, own)
        if args.rounds and rows[key]["f1"] >= max(WORTH_EDITING, NEAR_THE_BEST * best):
            e_values = leaf_e_values(context, unit, predicate, source, own, rounds=args.rounds)
            idle = {leaf for leaf, e in e_values.items() if e < IDLE_E}
            rows[key]["idle"] = len(idle) / len(e_values)
            smaller = without(predicate, idle)
            if smaller is not None and smaller != predicate:
                waiting.append((origin, smaller))
    return ToolResult(payload={"unit": unit.address, "predicates": list(rows.values())})


def _scores(predicate: Predicate, activations: Array, tokens: Tokens, rule: FiringRule) -> dict[str, float]:
    counts = count(holds(predicate, tokens), activations, tokens, rule)
    _, precision, coverage = counts.scores(np.ones((1, len(counts.documents))))
    _, precisions, coverages = counts.scores(document_weights(len(counts.documents), 0))
    return {
        "f1": f1_of(counts),
        "precision": float(precision[0]),
        "coverage": float(coverage[0]),
        "precision_low": lower_bound(precisions),
        "coverage_low": lower_bound(coverages),
    }


def leaf_e_values(
    context: ToolContext,
    unit: Unit,
    predicate: Predicate,
    source: Source,
    rule: FiringRule,
    *,
    rounds: int = len(ROUNDS),
) -> dict[Predicate, float]:
    """The e-value of each leaf's own edits; 1 where no edit could be made."""
    spent = spend_pairs(context.target, unit, predicate, source, rule, enough=replace(ENOUGH, rounds=rounds))
    leaf_e = spent.answers.bets(rule).leaf_e
    return {part: leaf_e.get(number, 1.0) for number, part in enumerate(leaves(predicate))}


def without(predicate: Predicate, idle: Collection[Predicate]) -> Predicate | None:
    """The predicate without some of its leaves, or modes; None where nothing is left."""
    if predicate in idle:
        return None
    if isinstance(predicate, nodes.Modes):
        left = [(part, mode.strength) for mode in predicate.of if (part := without(mode.predicate, idle)) is not None]
        if len(left) < 2:
            return left[0][0] if left else None
        return nodes.Modes(of=tuple(nodes.Mode(predicate=part, strength=strength) for part, strength in left))
    if not isinstance(predicate, (nodes.AllOf, nodes.AnyOf)):
        return predicate
    parts = tuple(part for one in predicate.of if (part := without(one, idle)) is not None)
    return None if not parts else parts[0] if len(parts) == 1 else type(predicate)(of=parts)
