"""nanoGPT: the weights are GPT-2's, stored the other way round and without some biases.

Source: github.com/karpathy/nanoGPT, model.py.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.checkpoints.converted import Converted, tied_to
from neuronaut.tools.targets.checkpoints.source import Source

EMBED = "transformer.wte.weight"
MASKS = (".attn.bias",)
EPS = 1e-5


def is_nanogpt(source: Source) -> bool:
    """Whether tensors are named as nanoGPT names them."""
    return EMBED in source.tensors and "transformer.ln_f.weight" in source.tensors


def from_nanogpt(source: Source) -> Converted:
    """The GPT-2 that computes the same. Refuses what is a Hugging Face GPT-2 already, and tensors that do not fit."""
    n_layer, n_head, d = source.number("n_layer"), source.number("n_head"), source.number("n_embd")
    n_ctx, d_vocab = source.number("block_size"), len(source.tensors[EMBED])
    if source.config.get("vocab_size") is not None:
        d_vocab = source.number("vocab_size")  # other rows in the embedding are refused
    if d % n_head:
        raise UserError(
            f"the configuration of {source.name!r} says {n_head} heads, which do not share {d} dimensions evenly"
        )
    _check_orientation(source, d)
    embed, head = source.take(EMBED, d_vocab, d), source.take_or("lm_head.weight", 0.0, d_vocab, d)
    tied = "lm_head.weight" not in source.tensors or tied_to(embed, head)
    weights = {EMBED: embed, "transformer.wpe.weight": source.take("transformer.wpe.weight", n_ctx, d)}
    weights |= {} if tied else {"lm_head.weight": head}
    for name in ("ln_f", *(f"h.{layer}.{norm}" for layer in range(n_layer) for norm in ("ln_1", "ln_2"))):
        weights[f"transformer.{name}.weight"] = source.take(f"transformer.{name}.weight", d)
        weights[f"transformer.{name}.bias"] = source.take_or(f"transformer.{name}.bias", 0.0, d)
    shapes = {"attn.c_attn": (3 * d, d), "attn.c_proj": (d, d), "mlp.c_fc": (4 * d, d), "mlp.c_proj": (d, 4 * d)}
    for layer in range(n_layer):
        for part, shape in shapes.items():
            name = f"transformer.h.{layer}.{part}"
            weights[f"{name}.weight"] = source.take(f"{name}.weight", *shape).T
            weights[f"{name}.bias"] = source.take_or(f"{name}.bias", 0.0, shape[0])
    source.check_all_taken(MASKS)
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": n_layer, "n_head": n_head, "n_embd": d,
        "n_inner": 4 * d, "n_positions": n_ctx, "vocab_size": d_vocab, "activation_function": "gelu",
        "layer_norm_epsilon": EPS, "tie_word_embeddings": tied,
    }  # fmt: skip
    notes = [
        "GELU is computed exactly, as nanoGPT does since June 2023; older checkpoints were trained with its tanh form"
    ]
    if "transformer.h.0.attn.c_attn.bias" not in source.tensors:
        notes.append("it has no biases: those of GPT-2 are zero")
    return Converted(config, weights, notes)


def _check_orientation(source: Source, d: int) -> None:
    found = source.tensors.get("transformer.h.0.attn.c_attn.weight")
    if found is not None and tuple(found.shape) == (d, 3 * d):
        raise UserError(f"{source.name!r} is stored as a Hugging Face GPT-2 already: give its folder as --model")


def nanogpt_logits(source: Source, ids: Tensor) -> Tensor:
    """(batch, pos, d_vocab) computed from the tensors as nanoGPT does, for comparison."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, source.tensors[f"{name}.weight"], source.tensors.get(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], source.tensors[f"{name}.weight"], source.tensors.get(f"{name}.bias"), EPS)

    n_layer, n_head, d = source.number("n_layer"), source.number("n_head"), source.number("n_embd")
    batch, pos = ids.shape
    x = source.tensors[EMBED][ids] + source.tensors["transformer.wpe.weight"][:pos]
    ahead = torch.ones(pos, pos, dtype=torch.bool).triu(1)
    for layer in range(n_layer):
        at = f"transformer.h.{layer}"
        three = linear(norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn").view(batch, pos, 3, n_head, d // n_head)
        q, k, v = three.permute(2, 0, 3, 1, 4)
        pattern = (q @ k.mT / math.sqrt(d // n_head)).masked_fill(ahead, -torch.inf).softmax(-1)
        x = x + linear((pattern @ v).transpose(1, 2).reshape(batch, pos, d), f"{at}.attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc")), f"{at}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ source.tensors.get("lm_head.weight", source.tensors[EMBED]).T
