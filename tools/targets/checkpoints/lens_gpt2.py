"""A state dict of TransformerLens as GPT-2."""

from typing import Any

import torch
from torch import Tensor

from neuronaut.tools.targets.checkpoints.converted import Converted, tied_to
from neuronaut.tools.targets.checkpoints.lens_parts import ACTIVATIONS, Parts, cannot


def as_gpt2(parts: Parts) -> Converted:
    """The GPT-2 that computes the same. Refuses heads that do not make up d_model."""
    if parts.n_heads * parts.d_head != parts.d or parts.n_kv != parts.n_heads:
        heads = f"{parts.n_heads} heads ({parts.n_kv} of keys) of {parts.d_head}"
        raise cannot(parts.source, f"its {heads} do not make up d_model {parts.d}")
    attn_only = bool(parts.source.config.get("attn_only"))
    d_mlp = 1 if attn_only else parts.source.number("d_mlp")
    if attn_only:
        parts.notes.append("it has no MLP: one neuron a layer that reads and writes nothing stands for it")
    embed = parts.source.take("embed.W_E", parts.d_vocab, parts.d)
    weights = {"transformer.wte.weight": embed}
    weights["transformer.wpe.weight"] = parts.source.take("pos_embed.W_pos", parts.n_ctx, parts.d)
    for layer in range(parts.n_layers):
        at, to = f"blocks.{layer}", f"transformer.h.{layer}"
        weights |= _attention(parts, at, to)
        weights |= _no_mlp(to, parts.d) if attn_only else _mlp(parts, at, to, d_mlp)
    gain, bias, unembed = _last(parts)
    weights |= {"transformer.ln_f.weight": gain, "transformer.ln_f.bias": bias}
    tied = tied_to(embed, unembed.T)
    weights |= {} if tied else {"lm_head.weight": unembed.T}
    config: dict[str, Any] = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": parts.n_layers, "n_head": parts.n_heads,
        "n_embd": parts.d, "n_inner": d_mlp, "n_positions": parts.n_ctx, "vocab_size": parts.d_vocab,
        "activation_function": "relu" if attn_only else ACTIVATIONS[parts.source.config["act_fn"]],
        "layer_norm_epsilon": parts.eps, "tie_word_embeddings": tied,
    }  # fmt: skip
    return Converted(config, weights, parts.notes)


def _attention(parts: Parts, at: str, to: str) -> dict[str, Tensor]:
    """With the norm before it."""
    d, heads = parts.d, [parts.head(f"{at}.attn", part, parts.n_heads) for part in "QKV"]
    gain, bias = parts.norm(f"{at}.ln1")
    return {
        f"{to}.ln_1.weight": gain,
        f"{to}.ln_1.bias": bias,
        f"{to}.attn.c_attn.weight": torch.cat([weight for weight, _ in heads], dim=1),
        f"{to}.attn.c_attn.bias": torch.cat([bias for _, bias in heads]),
        f"{to}.attn.c_proj.weight": parts.source.take(f"{at}.attn.W_O", parts.n_heads, parts.d_head, d).reshape(d, d),
        f"{to}.attn.c_proj.bias": parts.source.take_or(f"{at}.attn.b_O", 0.0, d),
    }


def _mlp(parts: Parts, at: str, to: str, d_mlp: int) -> dict[str, Tensor]:
    """With the norm before it."""
    take, d = parts.source.take, parts.d
    gain, bias = parts.norm(f"{at}.ln2")
    return {
        f"{to}.ln_2.weight": gain,
        f"{to}.ln_2.bias": bias,
        f"{to}.mlp.c_fc.weight": take(f"{at}.mlp.W_in", d, d_mlp),
        f"{to}.mlp.c_fc.bias": parts.source.take_or(f"{at}.mlp.b_in", 0.0, d_mlp),
        f"{to}.mlp.c_proj.weight": take(f"{at}.mlp.W_out", d_mlp, d),
        f"{to}.mlp.c_proj.bias": parts.source.take_or(f"{at}.mlp.b_out", 0.0, d),
    }


def _no_mlp(to: str, d: int) -> dict[str, Tensor]:
    """An MLP of one neuron that does nothing, and the norm before it."""
    return {
        f"{to}.ln_2.weight": torch.ones(d),
        f"{to}.ln_2.bias": torch.zeros(d),
        f"{to}.mlp.c_fc.weight": torch.zeros(d, 1),
        f"{to}.mlp.c_fc.bias": torch.zeros(1),
        f"{to}.mlp.c_proj.weight": torch.zeros(1, d),
        f"{to}.mlp.c_proj.bias": torch.zeros(d),
    }


def _last(parts: Parts) -> tuple[Tensor, Tensor, Tensor]:
    """Gain and bias of the last norm, and the unembedding (d_model, d_vocab), which say the bias of the logits too.

    What a LayerNorm leaves is centred, so that it does not see what is added to the unembedding in proportion to 1 / gain;
    a bias of the norm does.
    """
    gain, bias = parts.norm("ln_final")
    unembed = parts.source.take("unembed.W_U", parts.d, parts.d_vocab)
    wanted = parts.source.take_or("unembed.b_U", 0.0, parts.d_vocab)
    if not wanted.any():
        return gain, bias, unembed
    parts.notes.append(
        "the bias of its logits is said by the bias of the last norm and by what centred residuals do not see of the unembedding, "
        "equal up to rounding"
    )
    unseen = torch.where(gain == 0, 0.0, 1.0 / gain)
    more = (bias.double() @ unembed.double() + wanted - gain.double() @ unembed.double()) / (gain != 0).sum()
    return gain, gain, (unembed + unseen[:, None].double() * more).float()
