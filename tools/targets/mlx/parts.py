"""The modules of one layer of a model of mlx-lm, and its weights as the seam speaks of them."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import torch
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import AttentionWeights
from neuronaut.tools.targets.mlx.arrays import to_torch, weight_in
from neuronaut.tools.targets.mlx.configs import Understood
from neuronaut.tools.targets.mlx.experts import ExpertMlp
from neuronaut.tools.targets.mlx.loading import at
from neuronaut.tools.targets.mlx.visits import unvisited


@dataclass(frozen=True)
class Parts:
    """The modules of one layer; see layers.Layer, whose words these are. Of experts, gate and neurons_in hold the weights of all."""

    block: nn.Module
    attention: nn.Module
    heads_in: nn.Module
    projections: tuple[nn.Module, ...]
    mlp: nn.Module
    gate: nn.Module
    neurons_in: nn.Module
    experts: ExpertMlp | None
    attn_norm: nn.Module | None
    mlp_norm: nn.Module | None
    attn_post_norm: nn.Module | None
    post_norm: nn.Module | None

    @property
    def attn_in(self) -> nn.Module:
        """What the residual enters on its way to attention."""
        return self.attn_norm or self.attention

    @property
    def mlp_in(self) -> nn.Module:
        """What the residual enters on its way to the MLP."""
        return self.mlp_norm or self.mlp

    @property
    def attn_out(self) -> nn.Module:
        """What comes last before attention is added to the residual."""
        return self.attn_post_norm or self.attention

    @property
    def mlp_out(self) -> nn.Module:
        """What comes last before the MLP is added to the residual."""
        return self.post_norm or self.mlp


def parts_of(block: nn.Module, found: Understood) -> Parts:
    """The parts of a layer, by the names of its architecture."""
    names = found.names
    attention, mlp = at(block, names.attention), at(block, names.mlp)
    held = mlp if names.experts is None else at(mlp, names.experts)
    norms = [
        None if name is None else at(block, name)
        for name in (names.attn_norm, names.mlp_norm, names.attn_post_norm, names.post_norm)
    ]
    return Parts(
        block,
        attention,
        at(attention, names.heads_in),
        tuple(at(attention, name) for name in names.projections),
        mlp,
        at(held, names.gate or names.up),
        at(held, names.down),
        None if names.experts is None else mlp,
        *norms,
    )


def weight_of(module: nn.Module, expert: int | None = None) -> Tensor:
    """(n_out, n_in) the weights, of quantised ones what they stand for; expert: those of one."""
    return to_torch(weight_in(module, expert))


def gain_of(norm: nn.Module, d_model: int) -> Tensor:
    """(d_model,) what a norm multiplies with; an RMS norm is asked, since some store the gain less one."""
    if isinstance(norm, nn.LayerNorm):
        return to_torch(norm.weight)
    rows = mx.full((1, d_model), 1e3, dtype=norm.weight.dtype)
    return to_torch(unvisited(norm, rows)[0] / 1e3 * (1e6 + norm.eps) ** 0.5)


def read_vectors_of(parts: Parts, found: Understood, expert: int | None) -> Tensor:
    """(d_mlp, d_model) input weights of the neurons of a layer or an expert, of gated ones those of the gate."""
    return weight_of(parts.gate, expert)[: found.d_mlp]


def write_vectors_of(parts: Parts, found: Understood, expert: int | None) -> Tensor:
    """(d_mlp, d_model) output weights of the neurons of a layer or an expert, times the gain of a norm that follows."""
    write = weight_of(parts.neurons_in, expert).T
    return write if parts.post_norm is None else write * gain_of(parts.post_norm, found.d_model)


def biases_of(parts: Parts, found: Understood) -> Tensor:
    """(n_experts, d_model) what each expert writes beside its neurons, where its share is 1."""
    assert found.routing is not None
    bias = parts.neurons_in.get("bias")
    return torch.zeros(found.routing.n_experts, found.d_model) if bias is None else to_torch(bias)


def attention_weights_of(parts: Parts, found: Understood) -> AttentionWeights:
    """The weights of a layer's attention, head by head."""
    n_heads, n_kv, d_head, d_model = found.n_heads, found.n_kv_heads, found.d_head, found.d_model
    rows = torch.cat([weight_of(module) for module in parts.projections])
    biases = torch.cat([_bias_of(module) for module in parts.projections])
    if found.names.interleaved:  # query, key and value of a head stand together
        rows = rows.view(n_heads, 3, d_head, d_model).transpose(0, 1).reshape(-1, d_model)
        biases = biases.view(n_heads, 3, d_head).transpose(0, 1).flatten()
    sizes = [n * d_head for n in (n_heads, n_kv, n_kv)]
    out = weight_of(parts.heads_in)
    if len(rows) != sum(sizes) or tuple(out.shape) != (d_model, n_heads * d_head):
        raise UserError(
            f"the attention of {found.names.module} is built in a way that is not known: its weights are {tuple(rows.shape)} "
            f"and {tuple(out.shape)}, which are not those of {n_heads} heads of {d_head} numbers"
        )
    W_Q, W_K, W_V = (part.view(-1, d_head, d_model).transpose(1, 2) for part in torch.split(rows, sizes))
    b_Q, b_K, b_V = (part.view(-1, d_head) for part in torch.split(biases, sizes))
    W_O = out.T.reshape(n_heads, d_head, d_model)
    return AttentionWeights(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, _bias_of(parts.heads_in))


def _bias_of(module: nn.Module) -> Tensor:
    """(n_out,), 0 where the module has none."""
    n_out = module.weight.shape[0]
    return to_torch(module.bias) if "bias" in module else torch.zeros(n_out)
