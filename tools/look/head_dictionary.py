"""Every head of a model described: where it looks, what it writes of that, and what changes without it, in one table."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, layer_map
from neuronaut.tools.look.attends import RULE
from neuronaut.tools.look.attention import some_windows
from neuronaut.tools.look.head_attention import CLAIMS, Attention, attention_of, repeated_random
from neuronaut.tools.look.head_facts import Loss, Sight, Written, halves, losses_of, sights_of, written_by
from neuronaut.tools.look.head_tokens import EXPLORE_TOKENS, tokens_to_score
from neuronaut.tools.look.head_weights import Embedding
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates.attends import FIRST_QUERY, canonical_json, sentence
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.sites import heads_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

WINDOWS = 160  # half to choose a claim on, half to measure it on
MIN_WINDOWS = 8
MIN_EFFECT = 0.02  # nats, lower bound, by which what is said must change without a head
ABOVE = 95.0  # percentile among heads with random weights
COPIES, SUPPRESSES = 0.9, 0.1  # mean rank of the own token
CLEAR = 4.0  # standard deviations of the null
KINDS = {
    "previous": "previous token", "current": "current token", "first": "first token", "duplicate": "duplicate token",
    "induction": "induction", "offset": "fixed distance", "to": "content",
}  # fmt: skip


class DescribeHeadsArgs(ToolArgs):
    """n_windows: of explore text, half of them to choose what is said of a head, half to measure it. embedding: what stands for a
    token in the scores of weights, itself or with the first MLP's answer to it."""

    example: ClassVar = {"n_windows": 64}
    n_windows: int = Field(default=WINDOWS, ge=MIN_WINDOWS, le=160)
    embedding: Embedding = "mlp0"
    seed: int = Field(default=0, ge=0)


@tool("describe_heads")
def describe_heads(context: ToolContext, args: DescribeHeadsArgs) -> ToolResult:
    """Every head of the model in one table: where it looks (the best claim about keys on one half of some explore text, its counts on
    the other half), what it writes by its weights, what changes without it, and a description of those for which all of it holds.

    share: of the queries with a named key that look at it (more than 0.3 of their attention, and the largest apart from the first
    token); null: 40 heads with random weights, as sharp. copying: mean share of the other tokens' logits below the token's own (OV
    circuit); eigen: sum of the eigenvalues of the OV circuit between tokens over that of their sizes, 1 copies, -1 suppresses;
    nulls: the same with the outputs permuted, mean and spread of 20. successor: share of tokens of an order of which the next gets
    the largest logit; null: chance. effect: nats (KL) by which what is said changes at those queries when the head carries what it
    carries elsewhere; median_effect: of all heads, each at its own. random_tokens: the kind of key that gets most attention beyond its null on random
    tokens that come twice; null: keys of the shuffled text, or attention spread evenly. A head is described where the share's lower bound is at least
    0.6 and that of the attention off the first token 0.5, random tokens keep it at 0.6 (unless it names tokens), it is above
    95 % of random heads, and the effect's lower bound is at least 0.02 nats.
    These are descriptions from explore text, no tested claims: `neuronaut label --kind head` tests one for each head.
    Refuses: fewer than 8 windows of text.
    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Gould et al. 2023, arXiv:2312.09230.
    """
    target = context.target
    choose, measure = halves(_text(context, args), args.seed)
    units = heads_of(target.spec)
    sights = sights_of(context, choose, measure, args.seed)
    written, losses = written_by(context, args.embedding, args.seed), losses_of(target, measure, sights, args.seed)
    random = repeated_random(target, tokens_to_score(context, args.seed), args.seed)
    shares = attention_of(target, random, args.seed)
    rows = [_row(unit, sights[unit], written, losses[unit]) | _on_random(unit, shares) for unit in units]
    described = [row for row in rows if row["description"]]
    drawn = np.concatenate([sights[unit].random for unit in units] or [np.zeros(0)])
    null = float((drawn >= RULE).mean()) if len(drawn) else None
    share, n = len(described) / len(rows), len(rows)
    found = Measurement("described", share, "share of heads", n, null_value=null, n_of="heads")
    payload: dict[str, Any] = {
        "heads": rows, "documents": len(np.unique(measure.documents)), "described": len(described), "random_heads": len(drawn),
        "median_effect": round(float(np.median([loss.kl for loss in losses.values()])), 5),
        "units": [unit.address for unit in units],
    }  # fmt: skip
    return ToolResult((found,), payload, figures=_figures(target, rows))


def _text(context: ToolContext, args: DescribeHeadsArgs) -> Tokens:
    """Windows of explore text. Refuses too few that are long enough."""
    sample = context.sample("explore", EXPLORE_TOKENS)
    if (long_enough := int((sample.lengths > FIRST_QUERY).sum())) < MIN_WINDOWS:
        raise ToolRefused(
            f"the explore text has {long_enough} windows of 3 tokens, and {MIN_WINDOWS} are needed: give longer texts"
        )
    tokens = some_windows(sample, args.seed)
    return tokens.select(np.arange(len(tokens))[: args.n_windows])


def _row(unit: Unit, sight: Sight, written: Written, loss: Loss) -> dict[str, Any]:
    at, looks = (unit.layer, unit.index), sight.looks
    row: dict[str, Any] = {
        "head": unit.address,
        "kind": KINDS[sight.claim.key.kind],
        "looks": sentence(sight.claim),
        "claim": canonical_json(sight.claim),
        "queries": looks.n_queries,
        "share": round(looks.share, 4),
        "share_low": round(looks.share_low, 4),
        "off_first_low": round(looks.off_first_low, 4),
        "covers": round(looks.covers, 4),
        "anywhere": None if sight.anywhere is None else round(sight.anywhere, 4),
        "random_heads": round(float(np.quantile(sight.random, ABOVE / 100)), 4) if len(sight.random) else None,
        "rests": round(sight.rests, 4),
        "carries": sight.carries,
        "copying": round(float(written.copying[at]), 4),
        "copying_null": round(float(written.copying_null[at]), 4),
        "eigen": round(float(written.eigen[at]), 4),
        "eigen_null": round(float(written.eigen_null[at]), 4),
        "successor": None if written.successor is None else round(float(written.successor[at]), 4),
        "chance": None if written.chance is None else round(written.chance, 4),
        "writes": _writes(written, at, sight.carries),
        "effect": round(loss.kl, 5),
        "effect_low": round(loss.low, 5),
        "effect_high": round(loss.high, 5),
        "effect_anywhere": round(loss.anywhere, 5),
        "loss_rise": round(loss.rise, 5),
        "hurt": list(loss.hurt),
    }
    row["why_not"] = _why_not(sight, loss)
    return row | {"description": "" if row["why_not"] else _description(row)}


def _on_random(unit: Unit, shares: Attention) -> dict[str, Any]:
    """The kind of key that gets most attention, beyond its null, on repeated random tokens."""
    at = (unit.layer, unit.index)
    kind = max(
        (name for name in CLAIMS if name in shares.values),
        key=lambda name: shares.values[name][at] - shares.nulls[name][at],
    )
    found = (round(float(grid[kind][at]), 4) for grid in (shares.values, shares.nulls))
    return dict(zip(("random_tokens", "random_tokens_share", "random_tokens_null"), (KINDS[kind], *found), strict=True))


def _writes(written: Written, at: tuple[int, int], carries: str | None) -> str:
    """What a head writes of a token that it looks at: by its text, or by its weights, where these are clear; else ""."""
    if carries is not None:
        return {"copies": "copies it", "successor": "writes what comes next"}[carries]
    rank, spread = written.copying[at], max(written.copying_spread[at], 1e-9)
    clear = abs(rank - written.copying_null[at]) / spread >= CLEAR
    turned = abs(written.eigen[at] - written.eigen_null[at]) / max(written.eigen_spread[at], 1e-9) >= CLEAR
    if (
        written.successor is not None
        and written.chance is not None
        and written.successor[at] >= max(0.5, 2 * written.chance)
    ):
        return "writes what comes next"
    if clear and turned and rank >= COPIES and written.eigen[at] > 0:
        return "copies it"
    return "suppresses it" if clear and turned and rank <= SUPPRESSES and written.eigen[at] < 0 else ""


def _why_not(sight: Sight, loss: Loss) -> str:
    """Why a head is not described; "" of one that is."""
    looks = sight.looks
    if not sight.within_bounds:
        return (
            f"looks nowhere that can be named (at best it {sentence(sight.claim)}: at {looks.share:.2f} of the queries, at least "
            f"{looks.share_low:.2f}, and with at least {looks.off_first_low:.2f} of their attention off the first token)"
        )
    if loss.low < MIN_EFFECT:
        return f"{sentence(sight.claim)}, but what is said there changes by {loss.kl:.3f} nats only without it"
    if sight.anywhere is not None and sight.anywhere < RULE:
        return f"{sentence(sight.claim)}, but on random tokens at only {sight.anywhere:.2f} of the queries"
    if (sight.percentile or 0.0) < ABOVE:
        return (
            f"{sentence(sight.claim)}, as heads with random weights do (above {sight.percentile or 0.0:.0f} % of them)"
        )
    return ""


def _description(row: dict[str, Any]) -> str:
    writes = f" and {row['writes']}" if row["writes"] else ""
    hurt = ", ".join(f'"{piece}"' for piece in row["hurt"])
    needed = f", most for {hurt}" if row["loss_rise"] > 0 and hurt else ""
    return f"{row['looks']}{writes}; without it what is said there changes by {row['effect']:.2f} nats{needed}"


def _figures(target: TargetModel, rows: Sequence[dict[str, Any]]) -> tuple[Figure, ...]:
    shape = (target.spec.n_layers, target.spec.n_heads)
    found = []
    for name, unit, title in (
        ("share", "share of queries", "Where each head looks by its best claim, on text that it was not chosen on"),
        ("copying", "mean rank", "How far up each head puts the token that it looks at"),
        ("effect", "nats", "How far what is said changes without each head, where its best claim speaks"),
    ):
        grid = np.array([row[name] for row in rows]).reshape(shape)
        found.append(layer_map(f"heads_{name}", grid, Axes(title, "head", "", unit)))
    return tuple(found)
