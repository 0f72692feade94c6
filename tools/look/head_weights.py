"""Heads as maps between tokens, by their weights: which key a query scores highest, which logits a looked-at token raises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from neuronaut.tools.targets.base import Edit, Site, TargetModel

SPREAD = 1e-5  # of a variance, as in the norms themselves
Embedding = Literal["token", "mlp0"]


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
