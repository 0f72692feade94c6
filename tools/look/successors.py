"""The tool `successor_heads`: which heads raise the next, the previous or the next but one of what they look at."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from neuronaut.tools.drawn.curves import Series
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, curve, layer_map
from neuronaut.tools.look.head_weights import Embedding, HeadWeights
from neuronaut.tools.look.orders import Order, Scores, likeliest, n_pairs, orders_of, share_right, step_scores
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of, permutation_p
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.sites import heads_of
from neuronaut.tools.units import Unit

STEPS = {"next": 1, "previous": -1, "add_two": 2}
LEVEL = 0.01  # of the largest score of any head under permuted orders; three steps are looked at
HALF = 0.5  # of the tokens: a head of a kind says the right one of so many
MOST_OF = 0.9  # of a head's score, for which directions are counted
LISTED = 8  # directions of a head


class SuccessorHeadsArgs(ToolArgs):
    """embedding: what stands for a token, itself or with the first MLP's answer to it. k: heads that are taken apart by
    direction. n_permuted: random orders of the same tokens. n_random: models of random heads."""

    example: ClassVar = {"k": 2, "n_permuted": 199, "n_random": 2}
    embedding: Embedding = "mlp0"
    k: int = Field(default=3, ge=1, le=32)
    n_permuted: int = Field(default=399, ge=199, le=10_000)
    n_random: int = Field(default=20, ge=2, le=200)
    seed: int = Field(default=0, ge=0)


@tool("successor_heads")
def successor_heads(context: ToolContext, args: SuccessorHeadsArgs) -> ToolResult:
    """Which heads give the largest logit of its order to the token after the one that they look at, before it, or two on,
    by their weights (OV), and along how many directions.

    next, previous, add_two: share of digits, number words, months, days and letters for which that token gets the largest
    logit of its order, in [0, 1]. Nulls: the largest score of any head when the orders are permuted (p, corrected for the
    choice among all heads), and of as many heads with random weights. A successor head is at p ≤ 0.01, above all random
    heads and right for half of the tokens; there may be none. above_chance: heads that are right for fewer. directions:
    singular directions of OV, those that favour the next token most first, and how many give 0.9 of the score; beside as many
    random ones of the head.
    Refuses: a vocabulary without three tokens in order.
    Source: Gould et al. 2023, arXiv:2312.09230.
    """
    target, orders = context.target, orders_of(context.target.vocabulary)
    if not orders:
        raise ToolRefused(f"the vocabulary of {target.spec.name} holds no three tokens in order: it has no successors")
    best = likeliest(target, orders, args.embedding)
    scores = {name: step_scores(orders, best, step) for name, step in STEPS.items()}
    null = {name: permuted(orders, best, step, args.n_permuted, args.seed) for name, step in STEPS.items()}
    random = random_scores(target, orders, args)
    rows = [_row(head, at, scores, null, random) for at, head in enumerate(heads_of(target.spec))]
    by_order = {order.name: step_scores([order], [one]).round(4) for order, one in zip(orders, best, strict=True)}
    apart = [
        directions(target, orders, at, args) | {"by_order": {name: float(of[at]) for name, of in by_order.items()}}
        for at in np.argsort(-scores["next"], kind="stable")[: args.k].tolist()
    ]
    payload = {
        "orders": {order.name: len(order.pairs()) for order in orders},
        "embedding": args.embedding,
        "heads": rows,
        **_named(rows),
        "best": apart,
        "permuted": {name: _spread(values) for name, values in null.items()},
        "random": {name: round(float(values.max()), 4) for name, values in random.items()},
        "n_permuted": args.n_permuted,
        "n_random": args.n_random * len(rows),
    }
    found = tuple(_measured(name, scores[name], null[name], n_pairs(orders, step)) for name, step in STEPS.items())
    grids = {name: values.reshape(target.spec.n_layers, -1) for name, values in scores.items()}
    return ToolResult(found, payload, grids, _figures(grids, apart))


def permuted(orders: Sequence[Order], best: Sequence[NDArray[np.int64]], step: int, n: int, seed: int) -> Scores:
    """(n,) the largest score of any head, each time with the tokens of every order in a random order of their own."""
    rng, pairs = np.random.default_rng(seed), [order.pairs(step) for order in orders]
    mixed = (
        [rng.permutation(len(order.ids))[pair] for order, pair in zip(orders, pairs, strict=True)] for _ in range(n)
    )
    return np.array([share_right(best, one).max() for one in mixed])


def random_scores(target: TargetModel, orders: Sequence[Order], args: SuccessorHeadsArgs) -> dict[str, Scores]:
    """Of each step (n_random,): the largest score of any of as many heads as the target has, their weights drawn at random."""
    spec, made = target.spec, torch.Generator().manual_seed(args.seed)
    every: list[list[NDArray[np.int64]]] = [[] for _ in orders]
    n = args.n_random * spec.n_heads
    for layer in range(spec.n_layers):
        weights = HeadWeights(target, layer, args.embedding)
        reads = torch.randn(n, spec.d_model, spec.d_head, generator=made)
        writes = torch.randn(n, spec.d_head, spec.d_model, generator=made)
        for at, order in enumerate(orders):
            logits = (weights.looked_at(order.ids).float() @ reads) @ (writes @ weights.said(order.ids).float())
            every[at].append(logits.argmax(-1).numpy().reshape(args.n_random, spec.n_heads, -1))
    best = [np.concatenate(layers, axis=1) for layers in every]
    return {
        name: np.array([step_scores(orders, [one[at] for one in best], step).max() for at in range(args.n_random)])
        for name, step in STEPS.items()
    }


def directions(target: TargetModel, orders: Sequence[Order], at: int, args: SuccessorHeadsArgs) -> dict[str, Any]:
    """One head by its singular directions: how much each favours the next token over the others of its order, and the score
    of the first of them together, beside as many of the head's directions drawn at random."""
    layer, head = divmod(at, target.spec.n_heads)
    weights, own = HeadWeights(target, layer, args.embedding), target.attention_weights(layer)
    group = head // (target.spec.n_heads // target.spec.n_kv_heads)
    u, s, v = torch.linalg.svd(_small(own.W_V[group].float(), own.W_O[head].float()), full_matrices=False)
    reads = torch.linalg.qr(own.W_V[group].float()).Q @ u * s
    writes = v @ torch.linalg.qr(own.W_O[head].float().T).Q.T
    each = [
        torch.einsum("nk,ko->kno", weights.looked_at(one.ids).float() @ reads, writes @ weights.said(one.ids).float())
        for one in orders
    ]
    margins = _margins(orders, each)
    best = torch.argsort(-margins, stable=True)
    scores = [_score_of(orders, each, best[:n]) for n in range(1, len(best) + 1)]
    enough = next((n for n, score in enumerate(scores, 1) if score >= MOST_OF * scores[-1]), len(scores))
    made = torch.Generator().manual_seed(args.seed)
    drawn = [_score_of(orders, each, torch.randperm(len(best), generator=made)[:enough]) for _ in range(20)]
    total = float(margins.sum())
    return {
        "head": Unit("head", layer, head).address,
        "directions": enough,
        "of": len(best),
        "score": round(scores[enough - 1], 4),
        "random_directions": round(float(np.mean(drawn)), 4),
        "curve": [round(score, 4) for score in scores],
        "margins": [
            {"direction": int(i), "singular": round(float(s[i]), 4), "share": round(float(margins[i]) / total, 4) if total > 0 else None}
            for i in best[:LISTED]
        ],
    }  # fmt: skip


def _small(reads: Tensor, writes: Tensor) -> Tensor:
    """(d_head, d_head) a matrix with the singular values of reads @ writes."""
    return torch.linalg.qr(reads).R @ torch.linalg.qr(writes.T).R.T


def _margins(orders: Sequence[Order], each: Sequence[Tensor]) -> Tensor:
    """(n_directions,) mean logit that each adds to the next token beyond the mean of the others of its order."""
    total, n = torch.zeros(each[0].shape[0]), 0
    for order, logits in zip(orders, each, strict=True):
        pair = torch.from_numpy(order.pairs())
        rows = logits[:, pair[:, 0]]
        own = rows.gather(2, pair[:, 1].expand(len(rows), -1)[:, :, None])[:, :, 0]
        others = (rows.sum(-1) - own) / (rows.shape[-1] - 1)
        total, n = total + (own - others).sum(-1), n + len(pair)
    return total / max(1, n)


def _score_of(orders: Sequence[Order], each: Sequence[Tensor], chosen: Tensor) -> float:
    """The next score of some directions of one head alone."""
    best = [logits[chosen].sum(0).argmax(-1).numpy()[None] for logits in each]
    return float(step_scores(orders, best)[0])


def _row(
    head: Unit, at: int, scores: dict[str, Scores], null: dict[str, Scores], random: dict[str, Scores]
) -> dict[str, Any]:
    """One head, in row `at` of the scores: these, the p of the next one, and what it is."""
    p = {name: permutation_p(scores[name][at], null[name]) for name in STEPS}
    passed = [name for name in STEPS if p[name] <= LEVEL and scores[name][at] > random[name].max()]
    kind = max(passed, key=lambda name: scores[name][at], default=None)
    row: dict[str, Any] = {"head": head.address}
    row |= {name: round(float(scores[name][at]), 4) for name in STEPS}
    return row | {"p": round(p["next"], 4), "is": kind}


def _named(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The heads of each kind, the highest score first, and those that are better than chance at one and right for few."""
    names = {"next": "successors", "previous": "predecessors", "add_two": "add_two"}
    found: dict[str, list[str]] = {name: [] for name in (*names.values(), "above_chance")}
    for row in sorted(rows, key=lambda row: -row[row["is"] or "next"]):
        if row["is"] is not None:
            found[names[row["is"]] if row[row["is"]] >= HALF else "above_chance"].append(row["head"])
    return found


def _spread(values: Scores) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "high": round(float(np.quantile(values, 1 - LEVEL)), 4)}


def _measured(name: str, scores: Scores, null: Scores, n: int) -> Measurement:
    best = float(scores.max())
    above, unit = percentile_of(best, null), "share of tokens, best head"
    return Measurement(name, best, unit, n, None, float(np.median(null)), above, n_of="tokens")


def _figures(grids: dict[str, Scores], apart: Sequence[dict[str, Any]]) -> tuple[Figure, ...]:
    found = []
    for name, grid in grids.items():
        axes = Axes(f"{name.replace('_', ' ')} score of each head", "head", "", "share of tokens")
        found.append(layer_map(f"successors_{name}", grid, axes))
    series = [Series(one["head"], list(range(1, len(one["curve"]) + 1)), one["curve"]) for one in apart[:6]]
    axes = Axes("Next score by singular directions", "directions, those that favour the next token first", "next score")
    return (*found, curve("successors_directions", series, axes))
