"""GPT-2 written out for fast training on a CPU, with the function and the weight names of the Hugging Face model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """The sizes of the model."""

    n_layers: int = 10
    d_model: int = 128
    d_mlp: int = 512
    n_heads: int = 4
    context: int = 128
    vocabulary: int = 2048

    def huggingface(self) -> dict[str, object]:
        """The content of config.json, from which transformers builds the same function."""
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": "relu",
            "n_layer": self.n_layers,
            "n_embd": self.d_model,
            "n_inner": self.d_mlp,
            "n_head": self.n_heads,
            "n_positions": self.context,
            "n_ctx": self.context,
            "vocab_size": self.vocabulary,
            "layer_norm_epsilon": 1e-5,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "tie_word_embeddings": True,
            "dtype": "float16",
        }

    def sizes(self) -> dict[str, int]:
        """Field names and values, for printing."""
        return asdict(self)


class Output(NamedTuple):
    """Logits, and the mean over tokens of the neurons' activations (n_layers, d_mlp), gradients attached."""

    logits: Tensor
    activity: Tensor


class Linear(nn.Module):
    """A Conv1D of GPT-2: the weight is stored [in, out]."""

    def __init__(self, fan_in: int, fan_out: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_in, fan_out) * scale)
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias.to(x.dtype), x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """Causal attention inside the documents that `mask` allows."""

    def __init__(self, shape: Shape, out_scale: float) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        self.c_attn = Linear(shape.d_model, 3 * shape.d_model, shape.d_model**-0.5)
        self.c_proj = Linear(shape.d_model, shape.d_model, out_scale)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows, length = mask.shape[0], mask.shape[-1]
        qkv = self.c_attn(x).view(rows, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask)
        return self.c_proj(mixed.transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    """ReLU neurons."""

    def __init__(self, shape: Shape, out_scale: float) -> None:
        super().__init__()
        self.c_fc = Linear(shape.d_model, shape.d_mlp, shape.d_model**-0.5)
        self.c_proj = Linear(shape.d_mlp, shape.d_model, out_scale)


class Block(nn.Module):
    """One pre-norm layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        depth = (2 * shape.n_layers) ** -0.5
        self.ln_1 = nn.LayerNorm(shape.d_model, eps=1e-5)
        self.attn = Attention(shape, depth * shape.d_model**-0.5)
        self.ln_2 = nn.LayerNorm(shape.d_model, eps=1e-5)
        self.mlp = Mlp(shape, depth * shape.d_mlp**-0.5)

    def forward(self, x: Tensor, mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x = x + self.attn(self.ln_1(x).to(dtype), mask)
        neurons = torch.relu(self.mlp.c_fc(self.ln_2(x).to(dtype)))
        return x + self.mlp.c_proj(neurons), neurons


class Transformer(nn.Module):
    """The body of GPT-2; its state has the names of GPT2LMHeadModel under `transformer.`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.wte = nn.Embedding(shape.vocabulary, shape.d_model)
        self.wpe = nn.Embedding(shape.context, shape.d_model)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.ln_f = nn.LayerNorm(shape.d_model, eps=1e-5)
        nn.init.normal_(self.wte.weight, std=0.05)
        nn.init.normal_(self.wpe.weight, std=0.02)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, *, dtype: torch.dtype = torch.float32) -> Output:
        """ids, positions (rows, length); mask (rows, 1, length, length): 0 where attention is allowed, else -inf."""
        x = (self.wte(ids) + self.wpe(positions)).flatten(0, 1)
        mask = mask.to(dtype)
        means = []
        for block in self.blocks:
            x, neurons = block(x, mask, dtype)
            means.append(neurons.mean(0, dtype=torch.float32))
        logits = self.ln_f(x).to(dtype) @ self.wte.weight.to(dtype).T
        return Output(logits, torch.stack(means))

    @property
    def blocks(self) -> list[Block]:
        """The layers."""
        return [cast(Block, block) for block in self.h]

    def write_norms(self) -> Tensor:
        """How much each neuron writes when its activation is 1: (n_layers, d_mlp)."""
        return torch.stack([block.mlp.c_proj.weight.norm(dim=1) for block in self.blocks])
