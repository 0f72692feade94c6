"""Which inner module of a layer is what, and whether it is what it is called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.targets.base import ModelSpec, Site, SiteName
from neuronaut.tools.targets.experts import Experts, experts_of
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.hooks import Removable, Visit, after, before, seen
from neuronaut.tools.targets.shapes import ACTIVATION_KEYS

PROBED: tuple[SiteName, ...] = ("resid_pre", "attn_out", "mlp_out", "resid_post")


@dataclass(frozen=True)
class Layer:
    """The inner modules of one layer.

    attn_out, mlp_out: the last ones before the residual is added to (a norm, in
    Gemma); attn_norm, mlp_norm: what reads the residual, None where attention or MLP do so themselves (OLMo 2); experts: in
    the place of neurons_in; weights, attention_weights: the bridges of MLP and attention, whose
    W_in, W_gate, W_out and W_Q, W_K, W_V, W_O are x @ W in any storage order; projections: of queries, keys and values, one
    module alone where they are fused."""

    block: nn.Module
    attention: nn.Module
    attn_out: nn.Module
    heads_in: nn.Module
    mlp_out: nn.Module
    neurons_in: nn.Module | None
    experts: Experts | None
    post_norm: nn.Module | None
    weights: Any
    attn_norm: nn.Module | None
    mlp_norm: nn.Module | None
    attn_post_norm: nn.Module | None
    attention_weights: Any
    projections: tuple[nn.Module, ...]

    @property
    def attn_in(self) -> nn.Module:
        """What the residual enters on its way to attention."""
        return self.attention if self.attn_norm is None else self.attn_norm

    @property
    def mlp_in(self) -> nn.Module:
        """What the residual enters on its way to the MLP."""
        mlp: nn.Module = self.weights.original_component
        return mlp if self.mlp_norm is None else self.mlp_norm


def layer_of(block: Any, name: str) -> Layer:
    """The inner modules of a bridged layer. Refuses a layer with neither a plain MLP nor experts that are known."""
    mlp, attn = getattr(block, "mlp", None), getattr(block, "attn", None)
    down, heads = (_inner(part, leaf) for part, leaf in ((mlp, "out"), (attn, "o")))
    experts = None if mlp is None else experts_of(mlp.original_component, name)
    if attn is None or mlp is None or (down is None and experts is None) or heads is None:
        raise UserError(
            f"{name} cannot be studied: not every layer has plain attention and an MLP of neurons or of experts, which are "
            "all that is read"
        )
    attention, post_norm, attn_post_norm = attn.original_component, _inner(block, "ln2_post"), _inner(block, "ln1_post")
    split = [_inner(attn, part) for part in (("qkv",) if _inner(attn, "qkv") is not None else ("q", "k", "v"))]
    return Layer(
        block=block.original_component,
        attention=attention,
        attn_out=attn_post_norm or attention,
        heads_in=heads,
        mlp_out=post_norm or mlp.original_component,
        neurons_in=down,
        experts=experts,
        post_norm=post_norm,
        weights=mlp,
        attn_norm=_inner(block, "ln1"),
        mlp_norm=_inner(block, "ln2"),
        attn_post_norm=attn_post_norm,
        attention_weights=attn,
        projections=tuple(module for module in split if module is not None),
    )


def _inner(part: Any, name: str) -> nn.Module | None:
    wrapped = None if part is None else getattr(part, name, None)
    inner = getattr(wrapped, "original_component", None)
    return inner if isinstance(inner, nn.Module) else None


def spec_of(folder: ModelFolder, cfg: Any, model: Any, layers: Sequence[Layer], last_norm: nn.Module) -> ModelSpec:
    """The shape of a loaded model. cfg: as TransformerLens says it."""
    first = layers[0]
    said = [getattr(model.config, key, None) for key in ACTIVATION_KEYS]
    embed, unembed = model.get_input_embeddings(), model.get_output_embeddings()
    return ModelSpec(
        name=folder.name,
        n_layers=len(layers),
        d_model=int(cfg.d_model),
        d_mlp=first.experts.width if first.experts else int(first.weights.W_out.shape[0]),
        n_heads=int(cfg.n_heads),
        n_kv_heads=int(getattr(cfg, "n_key_value_heads", None) or cfg.n_heads),
        d_head=int(cfg.d_head),
        d_vocab=len(embed.weight),
        n_ctx=folder.context(int(cfg.n_ctx)),
        activation=next((str(named) for named in said if named is not None), str(cfg.act_fn)),
        gated=first.experts is not None or bool(cfg.gated_mlp),
        norm="layernorm" if isinstance(last_norm, nn.LayerNorm) else "rmsnorm",
        tied_embeddings=embed.weight is unembed.weight,
        bos=folder.bos,
        n_experts=first.experts.n_experts if first.experts else 0,
        parallel=bool(getattr(cfg, "parallel_attn_mlp", False)),
    )


def hook_at(layer: Layer, site: Site, heads: tuple[int, int], visit: Visit) -> Removable:
    """Calls `visit` with the activation of a site of the layer and puts what it returns in its place. heads: n_heads, d_head."""
    match site.name:
        case "resid_pre":
            return before(layer.block, visit)
        case "resid_post":
            return after(layer.block, visit)
        case "attn_out":
            return after(layer.attn_out, visit)
        case "mlp_out":
            return after(layer.mlp_out, visit)
        case "neurons" if layer.neurons_in is not None:
            return before(layer.neurons_in, visit)
        case "neurons" if layer.experts is not None and site.expert is not None:
            return layer.experts.hooked(site.expert, visit)
        case "router" if layer.experts is not None:
            return layer.experts.router_hooked(visit)
        case "heads":
            return before(layer.heads_in, lambda x: visit(x.reshape(*x.shape[:2], *heads)).flatten(-2))
        case "pattern":
            return layer.attention.register_forward_hook(lambda _, args, output: seen(visit(output[1])))
        case _:
            raise ToolRefused(f"{site} does not exist in this model")


def check_alike(layers: Sequence[Layer], spec: ModelSpec) -> None:
    """Refuses a model whose layers differ in how many neurons or experts they have: one shape is that of all."""
    shapes = [
        (one.experts.n_experts, one.experts.width) if one.experts else (0, int(one.weights.W_out.shape[0]))
        for one in layers
    ]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise UserError(
                f"{spec.name} cannot be studied: its layers are not alike, since layer 0 has {_shape(shapes[0])} and layer "
                f"{number} has {_shape(shape)}"
            )


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]} experts of {shape[1]} neurons" if shape[0] else f"{shape[1]} neurons"


def unwrap(module: nn.Module) -> None:
    """Puts back what TransformerLens wrapped: its wrappers cost time and force slow attention."""
    for name, child in list(module.named_children()):
        inner = getattr(child, "original_component", None)
        if isinstance(inner, nn.Module):
            setattr(module, name, inner)
            child = inner
        unwrap(child)


def fuse_activations(module: nn.Module) -> None:
    """Puts one call in the place of the eight that GELU with tanh is written out in: equal up to rounding, four times as fast."""
    from transformers.activations import NewGELUActivation

    for name, child in list(module.named_children()):
        if isinstance(child, NewGELUActivation):
            setattr(module, name, nn.GELU(approximate="tanh"))
        fuse_activations(child)


def gain_of(norm: nn.Module, d_model: int) -> Tensor:
    """(d_model,) what a norm multiplies with; an RMS norm is asked, since some store the gain less one."""
    if isinstance(norm, nn.LayerNorm):
        return norm.weight.detach().float()
    weight = next(norm.parameters())
    with torch.no_grad():
        gain: Tensor = norm.forward(torch.full((1, d_model), 1e3, dtype=weight.dtype))[0]  # unseen by hooks
    return gain.float()


def fault_of(read: Mapping[SiteName, Tensor], written: Tensor, *, post_norm: bool, tolerance: float) -> str | None:
    """What is wrong with the activations of a layer (one window, `PROBED`), None where they are what they are called.

    written: (batch, pos, d_model) by the neurons. attn_out and mlp_out must add up to the change of the residual, and mlp_out
    must differ from `written` by one bias (before the scale of a norm that follows). tolerance: relative to the largest value.
    """
    before, attn, mlp, after = (read[name].float() for name in PROBED)
    if float((before + attn + mlp - after).abs().max()) > tolerance * float(after.abs().max()):
        return "the outputs of attention and MLP do not add up to the change of the residual"
    rest = mlp - written
    apart = float((rest - rest[:, :1]).abs().max()) / max(float(mlp.abs().max()), 1e-30)
    if post_norm:
        apart = float((1 - F.cosine_similarity(written, mlp, dim=-1)).abs().max())
    return "the output of the MLP is not what its neurons write" if apart > tolerance else None
