"""Where does a head look: claims compared on design text, and the registered test on a confirm block."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.attends import apart, candidates
from neuronaut.tools.look.attention import (
    Bools,
    Floats,
    Looks,
    Pattern,
    count_looks,
    looked,
    looks_of_heads,
    pattern_of,
    random_tokens,
    repeated_tokens,
    shuffled,
    some_windows,
)
from neuronaut.tools.look.carried import carried
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates.attends import (
    Attends,
    Carried,
    Copies,
    Successor,
    To,
    attends_from_json,
    canonical_json,
    complexity,
    named_keys,
    sentence,
)
from neuronaut.tools.predicates.moved_keys import MovedKey, moved_keys
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import e_value, percentile_interval, percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens, tokens_from_ids
from neuronaut.tools.trials.random_heads import shares_of_random_heads
from neuronaut.tools.trials.without import effect_of_heads
from neuronaut.tools.trials.writes import unigram
from neuronaut.tools.units import Unit

SHOWN = 12
PAIRS = 160
EDITABLE = 60  # pairs that are tried on design text, to see whether there can be enough
MOST_RIVALS = 16
FEW_HEADS = 20  # other heads below which heads with random weights are asked too
REPEATS = ("duplicate", "induction")
CARRIED: tuple[Carried, ...] = (Copies(), Successor())


class HeadArgs(ToolArgs):
    """Which head."""

    example: ClassVar = {"unit": "L1H0"}
    unit: str
    seed: int = 0


class TestAttendsArgs(HeadArgs):
    """The registered claim and its rivals (JSON), and the confirm block that is opened."""

    example: ClassVar = {
        "unit": "L1H0", "claim": '{"kind":"attends","key":{"kind":"previous"}}',
        "rivals": ('{"kind":"attends","key":{"kind":"current"}}',), "block": 2,
    }  # fmt: skip
    claim: str
    rivals: tuple[str, ...] = Field(default=(), max_length=MOST_RIVALS)
    block: int = Field(ge=0, le=2)


@tool("compare_attends", opens_test_text=True)
def compare_attends(context: ToolContext, args: HeadArgs) -> ToolResult:
    """Share of the queries that look at the key that each kind of claim names, on design text, the best claim first: more than
    0.3 of a query's attention, and the largest apart from the first token.

    share_low: lower bound over documents; attention: mean on the key; off_first: of the queries' attention off the first
    token; covers: of that of all queries. shuffled, random, repeated: the share on the same tokens in random order, on
    random tokens, on random tokens that come twice. editable: documents in which the named key can be moved. carries:
    share of the queries that look at which the head writes, directly, the token itself (copies) or the next of its series
    (successor), beside chance.
    """
    unit, target = Unit.parse(args.unit), context.target
    tokens = some_windows(context.tokens("design"), args.seed)
    pattern = pattern_of(target, unit, tokens)
    rng = np.random.default_rng(args.seed)
    others = {name: make(tokens, rng) for name, make in _SYNTHETIC.items()}
    seen = {name: pattern_of(target, unit, texts) for name, texts in others.items()}
    rows = []
    for one in candidates(pattern, tokens)[:SHOWN]:
        arms = {name: count_looks(seen[name], named_keys(one.claim, texts), texts) for name, texts in others.items()}
        pairs = moved_keys(one.claim, tokens, unigram(context), limit=EDITABLE, seed=args.seed)
        more = {"worth": one.worth, "editable": len({pair.document for pair in pairs})}
        rows.append(_row(one.claim, one.looks) | more | {name: arm.share for name, arm in arms.items()})
    best = attends_from_json(rows[0]["claim"])
    written = [_carried_row(context, unit, best, carries, pattern, tokens) for carries in CARRIED]
    return ToolResult(payload={"unit": unit.address, "claims": rows, "carries": [row for row in written if row]})


_SYNTHETIC = {"shuffled": shuffled, "random": random_tokens, "repeated": repeated_tokens}


def _row(claim: Attends, looks: Looks) -> dict[str, Any]:
    return {
        "claim": canonical_json(claim),
        "sentence": sentence(claim),
        "complexity": complexity(claim),
        "queries": looks.n_queries,
        "share": looks.share,
        "share_low": looks.share_low,
        "attention": looks.attention,
        "off_first": looks.off_first,
        "off_first_low": looks.off_first_low,
        "covers": looks.covers,
        "by_chance": looks.by_chance,
    }


def _carried_row(
    context: ToolContext, unit: Unit, claim: Attends, carries: Carried, pattern: Pattern, tokens: Tokens
) -> dict[str, Any] | None:
    whole = claim.model_copy(update={"carries": carries})
    counts = carried(context.target, unit, whole, pattern, tokens)
    if counts is None:
        return None
    row = {"kind": carries.kind, "claim": canonical_json(whole), "share": counts.share, "share_low": counts.share_low}
    return row | {"chance": counts.chance}


@tool("test_attends", opens_test_text=True)
def test_attends(context: ToolContext, args: TestAttendsArgs) -> ToolResult:
    """The registered test of an attends claim on one confirm block: share of the queries with a named key that look at it, and
    pairs of edits that move the key.

    share: its null is the median of the model's other heads for the same claim, below 20 of them together with heads of
    random weights, as sharp as this one. off_first: share of those queries' attention off the first token that is on the
    key. effect: nats by which the next-token distribution at those queries changes (KL) when the head carries what it
    carries elsewhere; its null is the median of other heads. A document bets its pairs: won where the head looks at the
    followed token, or place, only where the claim names it. The synthetic arm has random tokens drawn for this claim;
    synthetic_low is None for a claim that names tokens.
    """
    unit, target = Unit.parse(args.unit), context.target
    claim, rivals = attends_from_json(args.claim), [attends_from_json(one) for one in args.rivals]
    tokens = some_windows(context.tokens("confirm", args.block), args.seed)
    pattern = pattern_of(target, unit, tokens)
    looks = count_looks(pattern, named_keys(claim, tokens), tokens)
    if not looks.n_queries:
        raise ToolRefused(f"{sentence(claim)!r} names a key nowhere in this text: it cannot be tested here")
    drawn = int.from_bytes(
        hashlib.sha256(f"{unit.address} {args.claim} {args.block} {args.seed}".encode()).digest()[:8]
    )
    pairs = moved_keys(claim, tokens, unigram(context), limit=PAIRS, seed=drawn)
    bets, wins, losses = bets_of(pairs, *followed(target, unit, pairs, tokens))
    nulls, random_heads = _nulls(context, unit, claim, tokens, pattern, drawn)
    texts = (repeated_tokens if claim.key.kind in REPEATS else random_tokens)(tokens, np.random.default_rng(drawn))
    synthetic = count_looks(pattern_of(target, unit, texts), named_keys(claim, texts), texts)
    measured, effect = _measured(context, unit, claim, tokens, looks, nulls, drawn)
    written = None if claim.carries is None else carried(target, unit, claim, pattern, tokens)
    payload = _row(claim, looks) | {
        "unit": unit.address, "bets": list(bets), "wins": wins, "losses": losses, "pairs": len(pairs), "effect_low": effect,
        "heads": len(nulls) - random_heads, "random_heads": random_heads,
        "synthetic": "repeated" if claim.key.kind in REPEATS else "random", "synthetic_share": synthetic.share,
        "synthetic_low": synthetic.share_low if _holds_anywhere(claim) and synthetic.n_queries else None,
        "synthetic_queries": synthetic.n_queries,
        "carried_share": None if written is None else written.share,
        "carried_low": None if claim.carries is None else 0.0 if written is None else written.share_low,
        "rivals": [row for rival in rivals if (row := _rival_row(claim, rival, pattern, tokens))],
    }  # fmt: skip
    return ToolResult(measured, payload)


def _holds_anywhere(claim: Attends) -> bool:
    """Whether a claim is about any text: one that names tokens may hold in natural text alone."""
    return claim.queries is None and not isinstance(claim.key, To)


def _rival_row(claim: Attends, rival: Attends, pattern: Pattern, tokens: Tokens) -> dict[str, Any] | None:
    """None of a rival that names no key in this text."""
    looks = count_looks(pattern, named_keys(rival, tokens), tokens)
    if not looks.n_queries:
        return None
    bets, agreement = apart(claim, rival, pattern, tokens)
    return {
        "claim": sentence(rival),
        "complexity": complexity(rival),
        "share": looks.share,
        "agreement": agreement,
        "apart_e": e_value(bets),
        "against_e": e_value([-bet for bet in bets]),
    }


def _measured(
    context: ToolContext, unit: Unit, claim: Attends, tokens: Tokens, looks: Looks, nulls: Floats, seed: int
) -> tuple[tuple[Measurement, ...], float]:
    """The measurements of a test, and the lower bound of the effect."""
    n = len(looks.documents)
    percentile = percentile_of(looks.share, nulls) if len(nulls) else 0.0
    median = float(np.median(nulls)) if len(nulls) else None
    named = np.asarray(named_keys(claim, tokens).any(axis=-1))
    own, others = effect_of_heads(context.target, unit, tokens, named, seed=seed)
    drawn = np.random.default_rng(0).choice(own, size=(2000, len(own))).mean(axis=1)
    low = float(np.quantile(drawn, 0.05))
    found = (
        Measurement("share", looks.share, "share of the queries", n, None, median, percentile),
        Measurement("off_first", looks.off_first, "share of the attention", n, None, looks.by_chance),
        Measurement(
            "effect", float(own.mean()), "nats", len(own), percentile_interval(drawn),
            float(np.median(others)) if len(others) else None,
        ),
    )  # fmt: skip
    return found, low


def _nulls(
    context: ToolContext, unit: Unit, claim: Attends, tokens: Tokens, pattern: Pattern, seed: int
) -> tuple[Floats, int]:
    """The shares of all other heads, and of heads with random weights where those are few; how many of the latter."""
    heads = looks_of_heads(context.target, claim, tokens, range(context.target.spec.n_layers))
    others = [looks.share for place, looks in heads.items() if place != (unit.layer, unit.index)]
    drawn: Sequence[float] = ()
    if len(others) < FEW_HEADS:
        drawn = shares_of_random_heads(context.target, unit, claim, tokens, pattern, seed=seed)
    return np.array([*others, *drawn]), len(drawn)


def followed(target: TargetModel, unit: Unit, pairs: Sequence[MovedKey], like: Tokens) -> tuple[Bools, Bools]:
    """(n_pairs,) whether the head looks at the followed token or place in the first text of each pair, and in the second."""
    if not pairs:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    sides = []
    for rows, places in (
        ([pair.make for pair in pairs], [pair.at_make for pair in pairs]),
        ([pair.placebo for pair in pairs], [pair.at_placebo for pair in pairs]),
    ):
        texts = tokens_from_ids(rows, like.vocabulary)
        pattern = pattern_of(target, unit, texts)
        keys = np.zeros(pattern.shape, dtype=bool)
        queries = [pair.query for pair in pairs]
        keys[np.arange(len(pairs)), queries, places] = True
        sides.append(looked(pattern, keys)[np.arange(len(pairs)), queries])
    return sides[0], sides[1]


def bets_of(pairs: Sequence[MovedKey], make: Bools, placebo: Bools) -> tuple[tuple[float, ...], int, int]:
    """(wins − losses) / discordant of each document with a discordant pair, in test order; wins; losses."""
    outcomes: dict[int, list[int]] = defaultdict(list)
    for pair, first, second in zip(pairs, make.tolist(), placebo.tolist(), strict=True):
        if first != second:
            outcomes[pair.document].append(1 if first else -1)
    told = [one for values in outcomes.values() for one in values]
    bets = tuple(sum(values) / len(values) for values in outcomes.values())
    return bets, told.count(1), told.count(-1)
