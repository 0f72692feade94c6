"""What a state dict of TransformerLens computes, straight from its tensors, to compare a conversion with."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.targets.checkpoints.lens_names import with_properties
from neuronaut.tools.targets.checkpoints.source import Source


def transformer_lens_logits(given: Source, ids: Tensor) -> Tensor:
    """(batch, pos, d_vocab)."""
    source = with_properties(given)
    tensors, config, n_pos = source.tensors, source.config, ids.shape[1]
    x = tensors["embed.W_E"][ids]
    if "pos_embed.W_pos" in tensors:
        x = x + tensors["pos_embed.W_pos"][:n_pos]
    for layer in range(source.number("n_layers")):
        x = x + _attention(source, f"blocks.{layer}.attn", _normed(source, x, f"blocks.{layer}.ln1"))
        if not config.get("attn_only"):
            x = x + _mlp(source, f"blocks.{layer}.mlp", _normed(source, x, f"blocks.{layer}.ln2"))
    return _normed(source, x, "ln_final") @ tensors["unembed.W_U"] + tensors.get("unembed.b_U", torch.zeros(()))


def _normed(source: Source, x: Tensor, name: str) -> Tensor:
    """Divided by its root mean square, centred before where the norm is a LayerNorm."""
    if not str(source.config["normalization_type"]).startswith("RMS"):
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + source.decimal("eps", 1e-5)).sqrt()
    return x * source.tensors.get(f"{name}.w", torch.ones(())) + source.tensors.get(f"{name}.b", torch.zeros(()))


def _attention(source: Source, at: str, x: Tensor) -> Tensor:
    def projected(part: str) -> Tensor:
        bias = source.tensors.get(f"{at}.b_{part}", torch.zeros(1, 1))
        return torch.einsum("bpd,hdk->bhpk", x, source.tensors[f"{at}.W_{part}"]) + bias[:, None]

    q, k, v = (projected(part) for part in "QKV")
    if source.config.get("positional_embedding_type") == "rotary":
        base = source.decimal("rotary_base", 10000.0)
        q, k = (_turned(one, base, pairs=source.pairs) for one in (q, k))
    groups, n_pos = q.shape[1] // k.shape[1], x.shape[1]
    k, v = (one.repeat_interleave(groups, dim=1) for one in (k, v))
    ahead = torch.ones(n_pos, n_pos, dtype=torch.bool).triu(1)
    pattern = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(ahead, -torch.inf).softmax(-1)
    out = torch.einsum("bhpk,hkd->bpd", pattern @ v, source.tensors[f"{at}.W_O"])
    return out + source.tensors.get(f"{at}.b_O", torch.zeros(()))


def _turned(x: Tensor, base: float, *, pairs: bool) -> Tensor:
    """Each two dimensions of (batch, head, pos, d_head) turned by their place. pairs: neighbours, else across the halves."""
    d_head = x.shape[-1]
    angles = torch.arange(x.shape[-2])[:, None] / base ** (torch.arange(0, d_head, 2) / d_head)
    first, second = (x[..., ::2], x[..., 1::2]) if pairs else x.chunk(2, dim=-1)
    turned = (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin())
    return torch.stack(turned, dim=-1).flatten(-2) if pairs else torch.cat(turned, dim=-1)


def _mlp(source: Source, at: str, x: Tensor) -> Tensor:
    def applied(part: str, value: Tensor) -> Tensor:
        return value @ source.tensors[f"{at}.W_{part}"] + source.tensors.get(f"{at}.b_{part}", torch.zeros(()))

    if source.config.get("gated_mlp"):
        return applied("out", _active(source, applied("gate", x)) * applied("in", x))
    return applied("out", _active(source, applied("in", x)))


def _active(source: Source, x: Tensor) -> Tensor:
    match source.config["act_fn"]:
        case "relu":
            return x.relu()
        case "silu":
            return F.silu(x)
        case "gelu":
            return F.gelu(x)
        case _:
            return F.gelu(x, approximate="tanh")
