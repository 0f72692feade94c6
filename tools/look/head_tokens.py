"""What a head does by its weights: which token looks at which, and what is said of a token that is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.attention import check_head
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.tasks.sequences import DAYS, DIGITS, LETTERS, MONTHS, NUMBER_WORDS
from neuronaut.tools.tokens import Vocabulary
from neuronaut.tools.units import Unit

MOST_TOKENS = 1024  # that are scored against each other
SPREAD = 1e-5  # of a variance, as in the norms themselves
EXPLORE_TOKENS = 50_000
Embedding = Literal["token", "mlp0"]


class Order(NamedTuple):
    """Tokens in order, those that the vocabulary holds. circle: the first follows the last."""

    name: str
    ids: tuple[int | None, ...]
    circle: bool

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Each token that has a successor, with it."""
        then = [*self.ids[1:], self.ids[0] if self.circle else None]
        return [(a, b) for a, b in zip(self.ids, then, strict=True) if a is not None and b is not None]


def orders_of(vocabulary: Vocabulary) -> list[Order]:
    """Digits, number words, months, days and letters, as the vocabulary writes most of them; of three pairs at least."""
    place = {piece: i for i, piece in reversed(list(enumerate(vocabulary.pieces)))}
    series = (
        ("digits", DIGITS[:10], False), ("number words", NUMBER_WORDS, False), ("months", MONTHS, True),
        ("days", DAYS, True), ("letters", LETTERS, False),
    )  # fmt: skip
    found = []
    for name, items, circle in series:
        ways = (
            [f" {one}" for one in items],
            items,
            [f" {one.lower()}" for one in items],
            [one.lower() for one in items],
        )
        each = [Order(name, tuple(place.get(one) for one in way), circle) for way in ways]
        best = max(each, key=lambda order: len(order.pairs))
        if len(best.pairs) >= 3:
            found.append(best)
    return found


def token_inputs(target: TargetModel, ids: Sequence[int], embedding: Embedding, layer: int) -> Tensor:
    """(n, d_model) what stands for each token before the attention of a layer, normed but for the gain and the bias.

    token: its embedding. mlp0: with what the first MLP makes of it, attention of the first layer left out; at layer 0 the
    embedding alone.
    """
    chosen = torch.tensor(list(ids), dtype=torch.long)
    if embedding == "token" or layer == 0:
        return normed(target, target.embed[chosen])
    bos = target.spec.bos
    rows = chosen[:, None] if bos is None else torch.stack([torch.full_like(chosen, bos), chosen], dim=1)
    site = Site("resid_post", 0)
    silent = Edit(Site("attn_out", 0), "set", 0.0)
    parts = [
        target.run(part, read=[site], edits=[silent], stop=1).read[site][:, -1] for part in torch.split(rows, 2048)
    ]
    return normed(target, torch.cat(parts).float())


def normed(target: TargetModel, x: Tensor) -> Tensor:
    """(…, d_model) of unit mean square; centred where the norms of the model centre."""
    x = x - x.mean(dim=-1, keepdim=True) if target.spec.norm == "layernorm" else x
    return x / (x.square().mean(dim=-1, keepdim=True) + SPREAD).sqrt()


def attention_out_gain(target: TargetModel, layer: int) -> Tensor:
    """(d_model,) what a norm behind the attention multiplies with, ones where there is none, found on a short text."""
    n = min(target.spec.n_ctx, target.spec.d_vocab, 32)
    out, heads = Site("attn_out", layer), Site("heads", layer)
    read = target.run(torch.arange(n)[None], read=[out, heads], stop=layer + 1).read
    weights = target.attention_weights(layer)
    raw = torch.einsum("bphd,hdm->bpm", read[heads].float(), weights.W_O) + weights.b_O
    given = read[out].float()
    if torch.allclose(raw, given, rtol=1e-3, atol=1e-3 * float(given.abs().max())):
        return torch.ones(target.spec.d_model)
    unit = raw / raw.square().mean(dim=-1, keepdim=True).sqrt()
    return (given * unit).sum(dim=(0, 1)) / unit.square().sum(dim=(0, 1))


@dataclass(frozen=True)
class HeadWeights:
    """One layer's heads as maps between tokens: gains folded in, biases and the scales of norms left out."""

    target: TargetModel
    layer: int
    embedding: Embedding = "mlp0"

    def ov(self, sources: Sequence[int], outputs: Sequence[int]) -> Tensor:
        """(n_heads, n_sources, n_outputs) logits that a head adds to each output when it looks at a source alone.

        Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
        """
        values, said = self.ov_factors(sources, outputs)
        return values @ said

    def ov_factors(self, sources: Sequence[int], outputs: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(n_heads, n_sources, d_head) and (n_heads, d_head, n_outputs), whose product is `ov`."""
        target, weights = self.target, self.target.attention_weights(self.layer)
        values = torch.einsum("nm,hmd->hnd", self.looked_at(sources), weights.W_V)
        values = values.repeat_interleave(target.spec.n_heads // target.spec.n_kv_heads, dim=0)
        return values, weights.W_O @ self.said(outputs)

    def looked_at(self, sources: Sequence[int]) -> Tensor:
        """(n_sources, d_model) what values read of each token."""
        x = token_inputs(self.target, sources, self.embedding, self.layer)
        return x * self.target.attention_norm_gain(self.layer)

    def said(self, outputs: Sequence[int]) -> Tensor:
        """(d_model, n_outputs) logits that a direction adds to each output when a head of this layer writes it."""
        target = self.target
        said = target.unembed[:, list(outputs)] * target.final_norm_gain()[:, None]
        if target.spec.norm == "layernorm":
            said = said - said.mean(dim=0)  # the same as a centred residual
        return attention_out_gain(target, self.layer)[:, None] * said

    def qk(self, head: int, queries: Sequence[int], keys: Sequence[int]) -> Tensor:
        """(n_queries, n_keys) attention scores of one head by the tokens alone; positions, rotary ones too, and norms of
        queries and keys are left out."""
        target, weights = self.target, self.target.attention_weights(self.layer)
        gain = target.attention_norm_gain(self.layer)
        q, k = (token_inputs(target, ids, self.embedding, self.layer) * gain for ids in (queries, keys))
        group = head // (target.spec.n_heads // target.spec.n_kv_heads)
        scores: Tensor = (q @ weights.W_Q[head]) @ (k @ weights.W_K[group]).T / target.spec.d_head**0.5
        return scores


def own_rank(scores: Tensor, own: Tensor) -> Tensor:
    """(…, n) share of the other columns that are below the own one of each row, ties by half: 1 first, 0 last, 0.5 chance.

    scores: (…, n, m); own: (n,) the column.
    """
    mine = scores.gather(-1, own.expand(*scores.shape[:-1])[..., None])
    below = (scores < mine).sum(-1) + 0.5 * ((scores == mine).sum(-1) - 1)
    return below / (scores.shape[-1] - 1)


def copying_scores(ov: Tensor) -> tuple[Tensor, Tensor]:
    """(n_heads,) how far up its own logit a token comes that is looked at (mean `own_rank`), and that of another token in
    its place. ov: (n_heads, n, n) of the same tokens."""
    own = torch.arange(ov.shape[-1])
    return own_rank(ov, own).mean(-1), own_rank(ov, own.roll(1)).mean(-1)


def successor_scores(target: TargetModel, layer: int, orders: Sequence[Order], embedding: Embedding) -> Tensor:
    """(n_heads,) share of the tokens of all orders for which the next one gets the largest logit of its order.

    Source: Gould et al. 2023, arXiv:2312.09230.
    """
    weights = HeadWeights(target, layer, embedding)
    hits = torch.zeros(target.spec.n_heads)
    for order in orders:
        members = [token for token in order.ids if token is not None]
        best = weights.ov([a for a, _ in order.pairs], members).argmax(-1)
        hits += (torch.tensor(members)[best] == torch.tensor([b for _, b in order.pairs])).sum(-1)
    return hits / sum(len(order.pairs) for order in orders)


def successor_chance(orders: Sequence[Order]) -> float:
    """The share of successors that a head finds whose largest logit falls anywhere in the order."""
    sizes = [(len(order.pairs), sum(token is not None for token in order.ids)) for order in orders]
    return sum(n / size for n, size in sizes) / sum(n for n, _ in sizes)


def tokens_to_score(context: ToolContext, seed: int, most: int = MOST_TOKENS) -> list[int]:
    """Ids of tokens that explore text holds, at most `most`, drawn by the seed, rising."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    found = np.unique(tokens.ids[tokens.scored])
    if len(found) < 3:
        raise ToolRefused(f"the explore text holds {len(found)} different tokens: give a corpus with more text")
    rng = np.random.default_rng(seed)
    return sorted(int(token) for token in rng.permutation(found)[:most])


class HeadTokensArgs(ToolArgs):
    """Which head, how many pairs. tokens: those between which pairs are sought, all tokens of explore text (at most 1024,
    drawn by the seed) where none are given. embedding: what stands for a token, itself or with the first MLP's answer."""

    example: ClassVar = {"unit": "L5H1", "k": 5}
    unit: str
    k: int = Field(default=10, ge=1, le=1000)
    tokens: tuple[str, ...] = Field(default=(), max_length=MOST_TOKENS)
    embedding: Embedding = "mlp0"
    seed: int = Field(default=0, ge=0)


@tool("head_tokens")
def head_tokens(context: ToolContext, args: HeadTokensArgs) -> ToolResult:
    """Token pairs of a head by its weights: which query token scores highest with which key token, and which logits a token
    that is looked at raises and lowers most.

    query_key: attention scores by the tokens alone, each key's mean over the queries taken off. output_value: logits. Gains
    are folded in; biases, positions (rotary ones too), the scales of norms and norms of queries and keys are left out.
    copying: mean share of the other tokens' logits below the token's own, in [0, 1]; matching: the same of the token as its
    own key. Nulls: the score of another token in its place; percentile among all heads of the layer.
    Refuses: a neuron; fewer than 3 tokens; text that is no single token.
    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
    """
    target, unit = context.target, Unit.parse(args.unit)
    check_head(target, unit)
    ids = _given(target, args.tokens) if args.tokens else tokens_to_score(context, args.seed)
    weights = HeadWeights(target, unit.layer, args.embedding)
    all_ov = weights.ov(ids, ids)
    own, other = copying_scores(all_ov)
    each = [weights.qk(head, ids, ids) for head in range(target.spec.n_heads)]
    matching = [tuple(float(score[0]) for score in copying_scores(one[None])) for one in each]
    qk = each[unit.index] - each[unit.index].mean(dim=0)
    found = (
        _measured("copying", own.tolist(), float(other[unit.index]), unit.index, len(ids)),
        _measured("matching", [mine for mine, _ in matching], matching[unit.index][1], unit.index, len(ids)),
    )
    pieces = [target.vocabulary.pieces[i] for i in ids]
    return ToolResult(
        found,
        {
            "unit": unit.address,
            "tokens": len(ids),
            "embedding": args.embedding if unit.layer else "token",
            "query_key": _pairs(qk, pieces, ("query", "key", "score"), args.k),
            "output_value": _pairs(all_ov[unit.index], pieces, ("source", "raises", "logit"), args.k),
            "output_value_lowered": _pairs(-all_ov[unit.index], pieces, ("source", "lowers", "logit"), args.k, sign=-1),
        },
    )


def _given(target: TargetModel, texts: Sequence[str]) -> list[int]:
    from neuronaut.tools.intervene.next_token import token_id

    ids = sorted({token_id(target, text) for text in texts})
    if len(ids) < 3:
        raise ToolRefused(f"{len(ids)} tokens make no pairs to choose from: give at least 3")
    return ids


def _measured(metric: str, heads: Sequence[float], null: float, head: int, n: int) -> Measurement:
    others = np.delete(np.array(heads), head)
    percentile = percentile_of(heads[head], others) if len(others) else None
    return Measurement(metric, heads[head], "mean rank", n, None, null, percentile, n_of="tokens")


def _pairs(
    scores: Tensor, pieces: Sequence[str], names: tuple[str, str, str], k: int, *, sign: int = 1
) -> list[dict[str, Any]]:
    """The k largest of a (n, n) grid, no row more than once."""
    best, column = scores.max(dim=1)
    top = torch.topk(best, min(k, len(best)))
    first, second, what = names
    return [
        {first: pieces[row], second: pieces[int(column[row])], what: round(sign * float(value), 4)}
        for value, row in zip(top.values, top.indices.tolist(), strict=True)
    ]
