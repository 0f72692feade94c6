"""What kind each head is: where it looks on repeated random tokens and on text, and what it says of what it looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.figures import Axes, Figure, attention_map, layer_map
from neuronaut.tools.look.attention import Floats, check_head, pattern_of
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.look.head_attention import Attention, attention_of, repeated_random, strongest
from neuronaut.tools.look.head_tokens import tokens_to_score
from neuronaut.tools.look.head_weights import Embedding, HeadWeights, copying_scores
from neuronaut.tools.look.orders import n_pairs, orders_of, successor_chance, successor_scores
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.units import Unit

MAX_FIGURES = 8
MAX_DRAWN = 256  # tokens of a text; a figure grows with the square, to 4 MB there


class HeadScoresArgs(ToolArgs):
    """unit: the head that is measured against all others; without one, for each score the head that has most of it.
    n_tokens: of explore text. embedding: what stands for a token in copying and successor, itself or with the first
    MLP's answer to it."""

    example: ClassVar = {"unit": "L5H1", "n_tokens": 2048}
    unit: str | None = None
    n_tokens: int = Field(default=4096, ge=64, le=65_536)
    embedding: Embedding = "mlp0"
    seed: int = Field(default=0, ge=0)


class AttentionOnArgs(ToolArgs):
    """Which head, on which texts, how many pairs of tokens to list."""

    example: ClassVar = {"unit": "L5H1", "texts": ["After Mary and Lucy met at the river, Lucy gave a ring to Mary."]}
    unit: str
    texts: tuple[Prompt, ...] = Field(min_length=1, max_length=1000)
    k: int = Field(default=10, ge=1, le=1000)


@dataclass(frozen=True)
class WeightScores:
    """copying and successor of all heads, (n_layers, n_heads) each, their nulls, and how many tokens were scored."""

    values: dict[str, Floats]
    nulls: dict[str, Floats]
    tokens: dict[str, int]


def weight_scores(target: TargetModel, ids: Sequence[int], embedding: Embedding) -> WeightScores:
    """Scores of what heads write; successor is left out where the vocabulary holds no three tokens in order."""
    layers, orders = range(target.spec.n_layers), orders_of(target.vocabulary)
    both = [copying_scores(HeadWeights(target, layer, embedding).ov(ids, ids)) for layer in layers]
    own, other = (np.stack([one[at].numpy() for one in both]).astype(np.float64) for at in (0, 1))
    found = WeightScores({"copying": own}, {"copying": other}, {"copying": len(ids)})
    if orders:
        found.values["successor"] = successor_scores(target, orders, embedding)
        found.nulls["successor"] = np.full(own.shape, successor_chance(orders))
        found.tokens["successor"] = n_pairs(orders)
    return found


@tool("head_scores")
def head_scores(context: ToolContext, args: HeadScoresArgs) -> ToolResult:
    """What kind each head is, of all heads at once: shares of attention on repeated random tokens and on explore text, and
    what heads write of a token that they look at.

    previous, current, first, duplicate, induction, start: mean share of a query's attention on these keys, in [0, 1]; entropy
    in nats. copying: mean share of the other tokens' logits below the token's own (OV circuit, 0.5 is chance); successor: share
    of digits, number words, months, days and letters of which the next one gets the largest logit of its order.
    Nulls: keys of the shuffled text (duplicate, induction), attention spread evenly (the other places), another token
    in place of the own one (copying), chance (successor); percentile among all heads, if one is asked about. Intervals are
    over documents. Rows without `_text` are of the random tokens and of the weights.
    Refuses: a unit that is no head of the model.
    Source: Olsson et al. 2022, arXiv:2209.11895; Elhage et al. 2021; Gould et al. 2023, arXiv:2312.09230.
    """
    target = context.target
    asked = _head(target, args.unit) if args.unit is not None else None
    pool = tokens_to_score(context, args.seed)
    random, text = repeated_random(target, pool, args.seed), context.sample("explore", args.n_tokens)
    on_random, on_text = (attention_of(target, tokens, args.seed) for tokens in (random, text))
    weights = weight_scores(target, pool, args.embedding)
    found = [_seen(name, "random", on_random, asked) for name in on_random.values]
    found += [_seen(name, "text", on_text, asked) for name in on_text.values]
    found += [_written(name, weights, asked) for name in weights.values]
    grids = {"random": on_random.values | weights.values, "text": on_text.values}
    payload: dict[str, Any] = {
        "unit": "for each score the head that has most of it" if asked is None else asked.address,
        "random_tokens": int(random.lengths[0]),
        "explore_tokens": text.n_scored,
        "orders": {order.name: len(order.pairs()) for order in orders_of(target.vocabulary)},
        "embedding": args.embedding,
    }
    payload |= {where: _rows(values) for where, values in grids.items()}
    arrays = {f"{where}_{name}": grid for where, values in grids.items() for name, grid in values.items()}
    return ToolResult(tuple(found), payload, arrays, _figures(grids["random"]))


def _head(target: TargetModel, name: str) -> Unit:
    unit = Unit.parse(name)
    check_head(target, unit)
    return unit


def _seen(name: str, where: str, attention: Attention, asked: Unit | None) -> Measurement:
    at = _place(attention.values[name], asked)
    unit = f"{'nats' if name == 'entropy' else 'share of attention'}, {Unit('head', *at).address}"
    values = attention.values[name]
    found = Measurement(f"{name}_{where}", float(values[at]), unit, attention.queries[name], n_of="queries")
    null = float(attention.nulls[name][at])
    return replace(found, ci=attention.interval(name, *at), null_value=null, null_percentile=_above(values, at, asked))


def _written(name: str, weights: WeightScores, asked: Unit | None) -> Measurement:
    values, nulls = weights.values[name], weights.nulls[name]
    at = _place(values, asked)
    unit = f"{'mean rank' if name == 'copying' else 'share of tokens'}, {Unit('head', *at).address}"
    n, percentile = weights.tokens[name], _above(values, at, asked)
    return Measurement(name, float(values[at]), unit, n, None, float(nulls[at]), percentile, n_of="tokens")


def _place(values: Floats, asked: Unit | None) -> tuple[int, int]:
    layer, head = np.unravel_index(int(values.argmax()), values.shape) if asked is None else (asked.layer, asked.index)
    return int(layer), int(head)


def _above(values: Floats, at: tuple[int, int], asked: Unit | None) -> float | None:
    """Percentile among the other heads; None of a head that was chosen for being the largest, and of a model's only one."""
    others = np.delete(values.ravel(), np.ravel_multi_index(at, values.shape))
    return percentile_of(values[at], others) if asked is not None and len(others) else None


def _rows(values: Mapping[str, Floats]) -> list[dict[str, Any]]:
    n_layers, n_heads = next(iter(values.values())).shape
    places = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    return [
        {"head": Unit("head", *at).address} | {name: round(float(grid[at]), 4) for name, grid in values.items()}
        for at in places
    ]


def _figures(values: Mapping[str, Floats]) -> tuple[Figure, ...]:
    found = []
    for name, grid in values.items():
        unit = {"entropy": "nats", "copying": "mean rank", "successor": "share of tokens"}.get(name, "attention")
        found.append(layer_map(f"head_scores_{name}", grid, Axes(f"{name} score of each head", "head", "", unit)))
    return tuple(found)


@tool("attention_on")
def attention_on(context: ToolContext, args: AttentionOnArgs) -> ToolResult:
    """Where a head looks on given texts: the pattern of each text as an artifact and, of the first 8 texts, where they have at
    most 256 tokens, as a figure; and the strongest pairs of query and key.

    weight: share of the query's attention; the first position, where heads rest, is listed apart (resting: its mean share
    over queries from the third token on). even: what a key would get if attention were spread evenly.
    Refuses: a neuron; a text that is longer than the context.
    """
    unit = _head(context.target, args.unit)
    tokens = read_texts(context.target, args.texts)
    found = pattern_of(context.target, unit, tokens)
    pieces = [[tokens.vocabulary.pieces[i] for i in tokens.ids[w, :n]] for w, n in enumerate(tokens.lengths)]
    rows = [
        {
            "text": text + 1,
            "query": tokens.named(text, query),
            "key": tokens.named(text, key),
            "weight": round(float(found[text, query, key]), 4),
            "even": round(1 / (query + 1), 4),
        }
        for text, query, key in strongest(found, tokens)[: args.k]
    ]
    resting = [float(found[w, 2:n, 0].mean()) if n > 2 else 1.0 for w, n in enumerate(tokens.lengths)]
    drawn = [
        attention_map(
            f"attention_{w + 1}", pieces[w], found[w, :n, :n], Axes(f"Attention of {unit.address}, text {w + 1}")
        )
        for w, n in enumerate(tokens.lengths[:MAX_FIGURES].tolist())
        if n <= MAX_DRAWN
    ]
    found = np.where(tokens.ids[:, :, None] < 0, np.nan, found)
    payload = {"unit": unit.address, "resting": [round(share, 4) for share in resting], "pairs": rows}
    return ToolResult(payload=payload, arrays={"pattern": found}, figures=tuple(drawn))
