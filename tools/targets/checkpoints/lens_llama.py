"""A state dict of TransformerLens as Llama."""

from typing import Any

import torch
from torch import Tensor

from neuronaut.tools.targets.checkpoints.converted import Converted, tied_to
from neuronaut.tools.targets.checkpoints.lens_parts import ACTIVATIONS, Parts, cannot

BIASED = {"attention_bias": ".self_attn.", "mlp_bias": ".mlp."}


def as_llama(parts: Parts) -> Converted:
    """The Llama that computes the same. Refuses a bias of the logits, and places that turn only part of a head."""
    source, config, d = parts.source, parts.source.config, parts.d
    if config.get("rotary_dim") not in (None, parts.d_head):
        raise cannot(source, f"its places turn {config['rotary_dim']} of {parts.d_head} dimensions of a head")
    if source.take_or("unembed.b_U", 0.0, parts.d_vocab).any():
        raise cannot(source, "its logits have a bias of their own (unembed.b_U)")
    d_mlp, embed = source.number("d_mlp"), source.take("embed.W_E", parts.d_vocab, d)
    unembed = source.take("unembed.W_U", d, parts.d_vocab).T
    tied = tied_to(embed, unembed)
    weights = {"model.embed_tokens.weight": embed, "model.norm.weight": source.take_or("ln_final.w", 1.0, d)}
    weights |= {} if tied else {"lm_head.weight": unembed}
    biases: dict[str, Tensor] = {}
    for layer in range(parts.n_layers):
        at, to = f"blocks.{layer}", f"model.layers.{layer}"
        _attention(parts, at, f"{to}.self_attn", weights, biases)
        _mlp(parts, at, f"{to}.mlp", d_mlp, weights, biases)
        weights[f"{to}.input_layernorm.weight"] = source.take_or(f"{at}.ln1.w", 1.0, d)
        weights[f"{to}.post_attention_layernorm.weight"] = source.take_or(f"{at}.ln2.w", 1.0, d)
    biased = {
        option: any(bool(bias.any()) for name, bias in biases.items() if part in name)
        for option, part in BIASED.items()
    }
    for option, part in BIASED.items():
        weights |= {name: bias for name, bias in biases.items() if part in name and biased[option]}
    made: dict[str, Any] = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": parts.n_layers, "hidden_size": d,
        "num_attention_heads": parts.n_heads, "num_key_value_heads": parts.n_kv, "head_dim": parts.d_head,
        "intermediate_size": d_mlp, "max_position_embeddings": parts.n_ctx, "vocab_size": parts.d_vocab,
        "hidden_act": ACTIVATIONS[config["act_fn"]], "rms_norm_eps": parts.eps, "tie_word_embeddings": tied,
        "rope_theta": source.decimal("rotary_base", 10000.0), **biased,
    }  # fmt: skip
    return Converted(made, weights, parts.notes)


def _attention(parts: Parts, at: str, to: str, weights: dict[str, Tensor], biases: dict[str, Tensor]) -> None:
    for part, n in (("Q", parts.n_heads), ("K", parts.n_kv), ("V", parts.n_kv)):
        weight, bias = parts.head(f"{at}.attn", part, n)
        rows = _turned(parts, n) if part != "V" else slice(None)
        weights[f"{to}.{part.lower()}_proj.weight"], biases[f"{to}.{part.lower()}_proj.bias"] = (
            weight.T[rows],
            bias[rows],
        )
    out = parts.source.take(f"{at}.attn.W_O", parts.n_heads, parts.d_head, parts.d)
    weights[f"{to}.o_proj.weight"] = out.reshape(-1, parts.d).T
    biases[f"{to}.o_proj.bias"] = parts.source.take_or(f"{at}.attn.b_O", 0.0, parts.d)


def _turned(parts: Parts, n: int) -> Tensor:
    """Rows of queries or keys in the order in which Llama turns them: the first half with the second."""
    rows = torch.arange(n * parts.d_head).view(n, parts.d_head)
    return (torch.cat([rows[:, ::2], rows[:, 1::2]], dim=1) if parts.source.pairs else rows).reshape(-1)


def _mlp(parts: Parts, at: str, to: str, d_mlp: int, weights: dict[str, Tensor], biases: dict[str, Tensor]) -> None:
    wide = {"up": ("in", parts.d, d_mlp), "gate": ("gate", parts.d, d_mlp), "down": ("out", d_mlp, parts.d)}
    for own, (theirs, reads, writes) in wide.items():
        weights[f"{to}.{own}_proj.weight"] = parts.source.take(f"{at}.mlp.W_{theirs}", reads, writes).T
        biases[f"{to}.{own}_proj.bias"] = parts.source.take_or(f"{at}.mlp.b_{theirs}", 0.0, writes)
