"""The tool `successor_heads`: which heads raise the next, the previous or the next but one of what they look at."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from neuronaut.tools.drawn.curves import Series
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, curve, heat_map
from neuronaut.tools.look.head_tokens import Embedding, HeadWeights, Order, orders_of
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of, permutation_p
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.units import Unit

STEPS = {"next": 1, "previous": -1, "add_two": 2}
LEVEL = 0.01  # of the largest score of any head under permuted orders; three steps are looked at
HALF = 0.5  # of the tokens: a head of a kind says the right one of so many
MOST_OF = 0.9  # of a head's score, for which directions are counted
LISTED = 8  # directions of a head
Hits = NDArray[np.float64]


class SuccessorHeadsArgs(ToolArgs):
    """embedding: what stands for a token, itself or with the first MLP's answer to it. k: heads that are taken apart by
    direction. n_permuted: random orders of the same tokens. n_random: models of random heads."""

    example: ClassVar = {"k": 2, "n_permuted": 199, "n_random": 2}
    embedding: Embedding = "mlp0"
    k: int = Field(default=3, ge=1, le=32)
    n_permuted: int = Field(default=399, ge=199, le=10_000)
    n_random: int = Field(default=20, ge=2, le=200)
    seed: int = Field(default=0, ge=0)


class Line(NamedTuple):
    """An order as tokens that are there. places: where each stands in the order, of `length`, which may be a circle."""

    name: str
    ids: tuple[int, ...]
    places: tuple[int, ...]
    length: int
    circle: bool

    @classmethod
    def of(cls, order: Order) -> "Line":
        """That of an order."""
        there = [(at, token) for at, token in enumerate(order.ids) if token is not None]
        return cls(order.name, tuple(t for _, t in there), tuple(at for at, _ in there), len(order.ids), order.circle)

    def pairs(self, step: int) -> NDArray[np.int64]:
        """(n, 2) numbers of tokens, one `step` behind the other."""
        number = {place: at for at, place in enumerate(self.places)}
        then = [(at, (place + step) % self.length if self.circle else place + step) for place, at in number.items()]
        return np.array([(at, number[to]) for at, to in then if to in number], dtype=np.int64).reshape(-1, 2)


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
    target = context.target
    lines = [Line.of(order) for order in orders_of(target.vocabulary)]
    if not lines:
        raise ToolRefused(f"the vocabulary of {target.spec.name} holds no three tokens in order: it has no successors")
    best = likeliest(target, lines, args.embedding)
    scores = {name: scored(lines, best, step) for name, step in STEPS.items()}
    null = {name: permuted(lines, best, step, args.n_permuted, args.seed) for name, step in STEPS.items()}
    random = random_scores(target, lines, args)
    rows = [_row(target, at, scores, null, random) for at in range(len(best[0]))]
    apart = []
    for at in np.argsort(-scores["next"], kind="stable")[: args.k].tolist():
        each = {line.name: float(scored([line], [one], 1)[at]) for line, one in zip(lines, best, strict=True)}
        rounded = {name: round(score, 4) for name, score in each.items()}
        apart.append(directions(target, lines, at, args) | {"by_order": rounded})
    payload = {
        "orders": {line.name: len(line.pairs(1)) for line in lines},
        "embedding": args.embedding,
        "heads": rows,
        **_named(rows),
        "best": apart,
        "permuted": {name: _spread(values) for name, values in null.items()},
        "random": {name: round(float(values.max()), 4) for name, values in random.items()},
        "n_permuted": args.n_permuted,
        "n_random": args.n_random * len(rows),
    }
    n = {name: sum(len(line.pairs(step)) for line in lines) for name, step in STEPS.items()}
    found = tuple(_measured(name, scores[name], null[name], n[name]) for name in STEPS)
    grids = {name: values.reshape(target.spec.n_layers, -1) for name, values in scores.items()}
    return ToolResult(found, payload, grids, _figures(grids, apart))


def likeliest(target: TargetModel, lines: Sequence[Line], embedding: Embedding) -> list[NDArray[np.int64]]:
    """Of each order (n_heads of all layers, n_tokens): the number of the token that gets the largest logit of the order."""
    layers = [HeadWeights(target, layer, embedding) for layer in range(target.spec.n_layers)]
    return [np.concatenate([one.ov(line.ids, line.ids).argmax(-1).numpy() for one in layers]) for line in lines]


def scored(lines: Sequence[Line], best: Sequence[NDArray[np.int64]], step: int) -> Hits:
    """(n_heads,) share of the tokens of all orders for which the one a step on is likeliest."""
    pairs = [line.pairs(step) for line in lines]
    hits = sum((one[:, pair[:, 0]] == pair[:, 1]).sum(axis=1) for one, pair in zip(best, pairs, strict=True))
    return np.asarray(hits / max(1, sum(map(len, pairs))), dtype=np.float64)


def permuted(lines: Sequence[Line], best: Sequence[NDArray[np.int64]], step: int, n: int, seed: int) -> Hits:
    """(n,) the largest score of any head, each time with the tokens of every order in a random order of their own."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        hits, total = np.zeros(len(best[0])), 0
        for line, one in zip(lines, best, strict=True):
            pair = rng.permutation(len(line.ids))[line.pairs(step)]
            hits, total = hits + (one[:, pair[:, 0]] == pair[:, 1]).sum(axis=1), total + len(pair)
        found.append(float(hits.max()) / max(1, total))
    return np.array(found)


def random_scores(target: TargetModel, lines: Sequence[Line], args: SuccessorHeadsArgs) -> dict[str, Hits]:
    """Of each step (n_random,): the largest score of any of as many heads as the target has, their weights drawn at random."""
    spec, made = target.spec, torch.Generator().manual_seed(args.seed)
    every: list[list[NDArray[np.int64]]] = [[] for _ in lines]
    n = args.n_random * spec.n_heads
    for layer in range(spec.n_layers):
        weights = HeadWeights(target, layer, args.embedding)
        reads = torch.randn(n, spec.d_model, spec.d_head, generator=made)
        writes = torch.randn(n, spec.d_head, spec.d_model, generator=made)
        for at, line in enumerate(lines):
            logits = (weights.looked_at(line.ids).float() @ reads) @ (writes @ weights.said(line.ids).float())
            every[at].append(logits.argmax(-1).numpy().reshape(args.n_random, spec.n_heads, -1))
    best = [np.concatenate(layers, axis=1) for layers in every]
    return {
        name: np.array([scored(lines, [one[at] for one in best], step).max() for at in range(args.n_random)])
        for name, step in STEPS.items()
    }


def directions(target: TargetModel, lines: Sequence[Line], at: int, args: SuccessorHeadsArgs) -> dict[str, Any]:
    """One head by its singular directions: how much each favours the next token over the others of its order, and the score
    of the first of them together, beside as many of the head's directions drawn at random."""
    layer, head = divmod(at, target.spec.n_heads)
    weights, own = HeadWeights(target, layer, args.embedding), target.attention_weights(layer)
    group = head // (target.spec.n_heads // target.spec.n_kv_heads)
    u, s, v = torch.linalg.svd(_small(own.W_V[group].float(), own.W_O[head].float()), full_matrices=False)
    reads = torch.linalg.qr(own.W_V[group].float()).Q @ u * s
    writes = v @ torch.linalg.qr(own.W_O[head].float().T).Q.T
    each = [
        torch.einsum("nk,ko->kno", weights.looked_at(line.ids).float() @ reads, writes @ weights.said(line.ids).float())
        for line in lines
    ]
    margins = _margins(lines, each)
    order = torch.argsort(-margins, stable=True)
    line = [_score_of(lines, each, order[:n]) for n in range(1, len(order) + 1)]
    enough = next((n for n, score in enumerate(line, 1) if score >= MOST_OF * line[-1]), len(line))
    made = torch.Generator().manual_seed(args.seed)
    drawn = [_score_of(lines, each, torch.randperm(len(order), generator=made)[:enough]) for _ in range(20)]
    total = float(margins.sum())
    return {
        "head": Unit("head", layer, head).address,
        "directions": enough,
        "of": len(order),
        "score": round(line[enough - 1], 4),
        "random_directions": round(float(np.mean(drawn)), 4),
        "curve": [round(score, 4) for score in line],
        "margins": [
            {"direction": int(i), "singular": round(float(s[i]), 4), "share": round(float(margins[i]) / total, 4) if total > 0 else None}
            for i in order[:LISTED]
        ],
    }  # fmt: skip


def _small(reads: Tensor, writes: Tensor) -> Tensor:
    """(d_head, d_head) a matrix with the singular values of reads @ writes."""
    return torch.linalg.qr(reads).R @ torch.linalg.qr(writes.T).R.T


def _margins(lines: Sequence[Line], each: Sequence[Tensor]) -> Tensor:
    """(n_directions,) mean logit that each adds to the next token beyond the mean of the others of its order."""
    total, n = torch.zeros(each[0].shape[0]), 0
    for line, logits in zip(lines, each, strict=True):
        pair = torch.from_numpy(line.pairs(1))
        rows = logits[:, pair[:, 0]]
        own = rows.gather(2, pair[:, 1].expand(len(rows), -1)[:, :, None])[:, :, 0]
        others = (rows.sum(-1) - own) / (rows.shape[-1] - 1)
        total, n = total + (own - others).sum(-1), n + len(pair)
    return total / max(1, n)


def _score_of(lines: Sequence[Line], each: Sequence[Tensor], chosen: Tensor) -> float:
    """The next score of some directions of one head alone."""
    best = [logits[chosen].sum(0).argmax(-1).numpy()[None] for logits in each]
    return float(scored(lines, best, 1)[0])


def _row(
    target: TargetModel, at: int, scores: dict[str, Hits], null: dict[str, Hits], random: dict[str, Hits]
) -> dict[str, Any]:
    """One head: its scores, the p of the next one, and what it is."""
    layer, head = divmod(at, target.spec.n_heads)
    p = {name: permutation_p(scores[name][at], null[name]) for name in STEPS}
    passed = [name for name in STEPS if p[name] <= LEVEL and scores[name][at] > random[name].max()]
    kind = max(passed, key=lambda name: scores[name][at], default=None)
    row: dict[str, Any] = {"head": Unit("head", layer, head).address}
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


def _spread(values: Hits) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "high": round(float(np.quantile(values, 1 - LEVEL)), 4)}


def _measured(name: str, scores: Hits, null: Hits, n: int) -> Measurement:
    best = float(scores.max())
    above, unit = percentile_of(best, null), "share of tokens, best head"
    return Measurement(name, best, unit, n, None, float(np.median(null)), above, n_of="tokens")


def _figures(grids: dict[str, Hits], apart: Sequence[dict[str, Any]]) -> tuple[Figure, ...]:
    found = []
    for name, grid in grids.items():
        layers, heads = [f"layer {at}" for at in range(len(grid))], [str(at) for at in range(grid.shape[1])]
        axes = Axes(f"{name.replace('_', ' ')} score of each head", "head", "", "share of tokens")
        found.append(heat_map(f"successors_{name}", grid, layers, heads, axes, rising=True))
    series = [Series(one["head"], list(range(1, len(one["curve"]) + 1)), one["curve"]) for one in apart[:6]]
    axes = Axes("Next score by singular directions", "directions, those that favour the next token first", "next score")
    return (*found, curve("successors_directions", series, axes))
