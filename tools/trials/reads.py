"""When does a neuron fire: its firing rule, predicates compared on design text, and the registered test on confirm text."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.pairs import ROUNDS, Answers, Bets, Enough, spend_pairs
from neuronaut.tools.look.activations import FIRING
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import (
    DENSE,
    FiringRule,
    Moments,
    ReadScores,
    agreement,
    compare_f1,
    compare_r2,
    count,
    coverage_by_band,
    f1_of,
    firing_rule,
    score_reads,
)
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.edits import Source
from neuronaut.tools.predicates.evaluate import holds, strength
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import complexity, leaves, predicate_from_json
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import e_value, percentile_of
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.halves import rarer_half_precision
from neuronaut.tools.trials.modes import lowered, mode_rows, mode_rules
from neuronaut.tools.trials.next_tokens import NextTokens
from neuronaut.tools.trials.nulls import f1_of_others, other_units, selection_null
from neuronaut.tools.trials.writes import unigram
from neuronaut.tools.units import Unit

MOST_RIVALS = 16


class UnitArgs(ToolArgs):
    """Which neuron; a trailing `-` asks about its downward side."""

    example: ClassVar = {"unit": "8.481"}
    unit: str


class TestReadsArgs(UnitArgs):
    """The registered claim and its rivals (JSON; the strongest rival on design first), and the confirm block that is
    opened. tried: what else the search scored before it chose the claim, for the selection null. rounds: of pairs of edits; all
    of them where the lower bounds of precision and coverage on this text reach `bars`. Where it is less than all, nothing
    more is spent on a claim with a leaf whose edits tell too little."""

    claim: str
    rivals: tuple[str, ...] = Field(default=(), max_length=MOST_RIVALS)
    tried: tuple[str, ...] = Field(default=(), max_length=256)
    block: int = Field(ge=0, le=2)
    seed: int = 0
    rounds: int = Field(default=len(ROUNDS), ge=1, le=len(ROUNDS))
    bars: tuple[float, float] | None = None


def rule_of(context: ToolContext, unit: Unit) -> FiringRule | str:
    """The firing rule from the explore sample, or why there is none."""
    check_unit(context.target.spec, unit, context.target.dictionaries)
    if unit.kind in FIRING:
        other_units(context, unit)  # read in the same pass, for the test that may follow
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    return firing_rule(activations, context.sample("explore", EXPLORE_TOKENS))


def needed_rule(context: ToolContext, unit: Unit) -> FiringRule:
    """The firing rule from the explore sample; ToolRefused where there is none."""
    rule = rule_of(context, unit)
    if isinstance(rule, str):
        raise ToolRefused(f"{unit.address}: {rule}")
    return rule


def rules_of_modes(context: ToolContext, unit: Unit, claim: Predicate, rule: FiringRule) -> list[FiringRule]:
    """The rule of each mode of a claim, from design text; empty for a claim without modes."""
    if not isinstance(claim, nodes.Modes):
        return []
    return mode_rules(claim, context.activations(unit, "design"), context.tokens("design"), rule)


@tool("firing")
def firing(context: ToolContext, args: UnitArgs) -> ToolResult:
    """When the neuron counts as firing: above t = median + (top − median) / 2 on explore text, top the median of its 20
    largest document maxima. base_rate: share of explore tokens at which it fires.

    payload.abstained says why there is no such rule (too rare here, this side does not exist).
    special_token: it is larger on a special token than its top; special tokens are left out of search and scores.
    """
    unit = Unit.parse(args.unit)
    tokens = context.sample("explore", EXPLORE_TOKENS)
    rule = rule_of(context, unit)
    if isinstance(rule, str):
        return ToolResult(payload={"unit": unit.address, "abstained": rule})
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    special = (tokens.ids >= 0) & ~tokens.scored
    rate = float((activations[tokens.scored] > rule.threshold).mean())
    larger = bool(special.any() and activations[special].max() > rule.top)
    n = len(np.unique(tokens.documents))
    payload = {"unit": unit.address, "rule": asdict(rule), "special_token": larger, "explore_tokens": tokens.n_scored}
    return ToolResult((Measurement("base_rate", rate, "share of tokens", n),), payload)


def edit_source(context: ToolContext, tokens: Tokens) -> Source:
    """What edits of this text are made from: unigram shares and the target's own next-token distribution."""
    target = context.target

    def survives(rows: Sequence[tuple[int, ...]]) -> list[bool]:
        back = target.tokenize([target.decode(row) for row in rows])
        windows: dict[int, list[tuple[int, ...]]] = {}
        for window, document in enumerate(back.documents):
            windows.setdefault(int(document), []).append(tuple(int(i) for i in back.ids[window] if i >= 0))
        return [windows.get(i) == [tuple(row)] for i, row in enumerate(rows)]

    return Source(tokens, unigram(context), NextTokens.of(context), survives, target.spec.n_ctx)


@tool("test_reads", opens_test_text=True)
def test_reads(context: ToolContext, args: TestReadsArgs) -> ToolResult:
    """The registered test of a reads claim on one confirm block: scores at the natural base rate with intervals by document,
    pairs of edits, rivals on the same text, random units of the layer, the best of null units.

    f1: harmonic mean of precision and coverage, in [0, 1]; its null is the claim's F1 on other neurons of the layer.
    """
    unit, claim = Unit.parse(args.unit), predicate_from_json(args.claim)
    rivals = [predicate_from_json(source) for source in args.rivals]
    tried = [predicate_from_json(source) for source in args.tried]
    rule, tokens = needed_rule(context, unit), context.tokens("confirm", args.block)
    rules = rules_of_modes(context, unit, claim, rule)
    rule = lowered(rule, rules)
    others = f1_of_others(context, unit, claim, args.block)
    activations = context.activations(unit, "confirm", block=args.block)
    scores = score_reads(strength(claim, tokens), activations, tokens, rule, seed=args.seed)
    rule = replace(rule, dense=bool(scores.counts.fired.sum() / scores.counts.places.sum() > DENSE))
    source = edit_source(context, tokens)
    bars = args.bars
    short = bars is None or scores.precision_low < bars[0] or scores.coverage_low < bars[1]
    avoid = rivals[0] if rivals else None
    enough = Enough(rounds=args.rounds if short else len(ROUNDS), every_leaf=args.rounds < len(ROUNDS))
    spent = spend_pairs(context.target, unit, claim, source, rule, avoid=avoid, enough=enough)
    bets = spent.answers.bets(rule)
    leaf_e = _leaf_e(claim, spent.answers, rules or [rule])
    texts = spent.answers.texts(tokens.vocabulary)
    told = [spent.answers.told_apart(rival, texts, rule) for rival in rivals]
    payload = {
        "places": int(scores.counts.held.sum()),
        "dense": rule.dense,
        "precision_low": scores.precision_low,
        "coverage_low": scores.coverage_low,
        "coverage_by_band": coverage_by_band(holds(claim, tokens), activations, tokens, rule),
        "r_low": scores.r_low,
        "ap_null": selection_null(claim, [*rivals, *tried], activations, tokens, args.seed),
        "rarer_half_precision": rarer_half_precision(claim, activations, tokens, rule),
        "pairs": {"bets": list(bets.scores), "wins": bets.wins, "discordant": bets.discordant, "pairs": bets.pairs,
                  "documents": len(bets.scores), "discarded": spent.discarded},
        "leaf_e": {str(leaf): e for leaf, e in zip(leaves(claim), leaf_e, strict=True)},
        "modes": mode_rows(claim, rules, activations, tokens, spent.answers, args.seed),
        "rivals": [
            _rival(claim, rival, leaf_e, activations, tokens, rule, args.seed)
            | {"told_apart_e": e_value(scores) if scores else None}
            for rival, scores in zip(rivals, told, strict=True)
        ],
        "unexplained": unexplained(claim, activations, tokens, rule),
    }  # fmt: skip
    return ToolResult(_measured(scores, others, bets), payload)


def _measured(scores: ReadScores, others: Array, bets: Bets) -> tuple[Measurement, ...]:
    f1 = scores.measurements["f1"]
    null, percentile = float(np.median(others)), percentile_of(f1.value, others)
    measured = {**scores.measurements, "f1": replace(f1, null_value=null, null_percentile=percentile)}
    return *measured.values(), Measurement("e", bets.e, "e-value", len(bets.scores), null_value=1.0)


def _leaf_e(claim: Predicate, answers: Answers, rules: Sequence[FiringRule]) -> list[float]:
    """The e-value of each leaf's own pairs, 1 without any; of the leaf of a mode by the mode's own rule."""
    parts = [mode.predicate for mode in claim.of] if isinstance(claim, nodes.Modes) else [claim]
    found = [answers.bets(rule).leaf_e for rule in rules]
    return [
        max(e.get(number, 1.0) for part, e in zip(parts, found, strict=True) if leaf in leaves(part))
        for number, leaf in enumerate(leaves(claim))
    ]


def _rival(
    claim: Predicate,
    rival: Predicate,
    leaf_e: Sequence[float],
    activations: Array,
    tokens: Tokens,
    rule: FiringRule,
    seed: int,
) -> dict[str, Any]:
    """One rival's row. Only a rival made of the claim's own leaves is told apart by a leaf that it lacks: the edits of a
    leaf leave the others as they are, but may flip a condition that the claim does not have."""
    if isinstance(claim, nodes.Graded):
        ours, theirs = (Moments.of(strength(p, tokens), activations, tokens) for p in (claim, rival))
        score = float(theirs.r2(np.ones((1, theirs.sums.shape[1])))[0])
        difference, low, high = compare_r2(ours, theirs, seed=seed)
    else:
        mine, other = (count(holds(p, tokens), activations, tokens, rule) for p in (claim, rival))
        score = f1_of(other)
        difference, low, high = compare_f1(mine, other, seed=seed)
    own, parts = leaves(claim), set(leaves(rival))
    lacked = [e for leaf, e in zip(own, leaf_e, strict=True) if leaf not in parts] if parts <= set(own) else []
    return {
        "predicate": tree.canonical_json(rival),
        "complexity": complexity(rival),
        "f1": score,
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "agreement": agreement(holds(claim, tokens), holds(rival, tokens)),
        "lacked_leaf_e": max(lacked) if lacked else None,
    }


def unexplained(
    claim: Predicate, activations: Array, tokens: Tokens, rule: FiringRule, *, k: int = 3
) -> dict[str, Any]:
    """The share of the firing mass outside the claim; of the places, the tokens that hold most of it."""
    flat = np.where(tokens.scored & (activations > rule.threshold), activations - rule.median, 0.0)
    outside = np.where(holds(claim, tokens), 0.0, flat)
    total = float(flat.sum())
    by_token = np.bincount(tokens.ids[outside > 0], weights=outside[outside > 0], minlength=1)
    top = [int(i) for i in np.argsort(-by_token)[:k] if by_token[i] > 0]
    share = float(outside.sum() / total) if total else 0.0
    return {"share": share, "tokens": [tokens.vocabulary.pieces[i] for i in top]}
