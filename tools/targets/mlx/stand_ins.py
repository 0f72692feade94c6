"""Modules of mlx as torch code hooks them: what takes edges apart and what reads features asks a layer for its modules."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import mlx.nn
from torch import Tensor, nn

from neuronaut.tools.targets.layers import Layer
from neuronaut.tools.targets.mlx.arrays import to_torch
from neuronaut.tools.targets.mlx.parts import Parts, gain_of, weight_of
from neuronaut.tools.targets.mlx.visits import Held, after, before, in_torch


class Place:
    """A module of mlx that takes the hooks of torch."""

    def __init__(self, module: mlx.nn.Module) -> None:
        self.module = module

    def parameters(self) -> Iterator[Tensor]:
        """Its weights (n_out, n_in), of quantised ones what they stand for."""
        yield weight_of(self.module)

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, with_kwargs: bool = False) -> Held:
        """Calls the hook with what goes in."""

        def visit(x: Tensor) -> Tensor:
            entered: Tensor = hook(self, (x,), {})[0][0]
            return entered

        assert with_kwargs
        return before(self.module, in_torch(visit))

    def register_forward_hook(self, hook: Callable[..., Any]) -> Held:
        """Calls the hook with what comes out."""

        def visit(x: Tensor) -> Tensor:
            left: Tensor = hook(self, (), x)
            return left

        return after(self.module, in_torch(visit))


class PlaceOfLayerNorm(nn.LayerNorm):
    """The same of a norm, which torch can compute too, unseen by hooks."""

    def __init__(self, norm: mlx.nn.Module, d_model: int) -> None:
        super().__init__(d_model, norm.eps)
        self.weight.data, self.bias.data = to_torch(norm.weight), to_torch(norm.bias)
        self.requires_grad_(False)
        self.place = Place(norm)

    def register_forward_pre_hook(self, hook: Callable[..., Any], **options: Any) -> Any:
        """Calls the hook with what goes in."""
        return self.place.register_forward_pre_hook(hook, **options)

    def register_forward_hook(self, hook: Callable[..., Any], **options: Any) -> Any:
        """Calls the hook with what comes out."""
        return self.place.register_forward_hook(hook, **options)


class PlaceOfRmsNorm(nn.RMSNorm):
    """The same of a norm without a mean."""

    def __init__(self, norm: mlx.nn.Module, d_model: int) -> None:
        super().__init__(d_model, norm.eps)
        self.weight.data = gain_of(norm, d_model)
        self.requires_grad_(False)
        self.place = Place(norm)

    def register_forward_pre_hook(self, hook: Callable[..., Any], **options: Any) -> Any:
        """Calls the hook with what goes in."""
        return self.place.register_forward_pre_hook(hook, **options)

    def register_forward_hook(self, hook: Callable[..., Any], **options: Any) -> Any:
        """Calls the hook with what comes out."""
        return self.place.register_forward_hook(hook, **options)


def norm_place(norm: mlx.nn.Module | None, d_model: int) -> Any:
    """A norm of mlx as torch code hooks and computes it, None where there is none."""
    if norm is None:
        return None
    return (PlaceOfLayerNorm if isinstance(norm, mlx.nn.LayerNorm) else PlaceOfRmsNorm)(norm, d_model)


def layer_place(parts: Parts, d_model: int) -> Layer:
    """A layer whose modules are those of mlx; of its weights only those of norms are there."""
    norms = (parts.attn_norm, parts.mlp_norm, parts.attn_post_norm, parts.post_norm)
    attn_norm, mlp_norm, attn_post_norm, post_norm = (norm_place(norm, d_model) for norm in norms)
    attention, mlp = Place(parts.attention), Place(parts.mlp)
    place = SimpleNamespace(
        block=Place(parts.block),
        attention=attention,
        attn_in=attention if attn_norm is None else attn_norm,
        attn_out=attention if attn_post_norm is None else attn_post_norm,
        heads_in=Place(parts.heads_in),
        mlp_in=mlp if mlp_norm is None else mlp_norm,
        mlp_out=mlp if post_norm is None else post_norm,
        neurons_in=Place(parts.neurons_in),
        experts=parts.experts,
        post_norm=post_norm,
        weights=SimpleNamespace(original_component=mlp),
        attn_norm=attn_norm,
        mlp_norm=mlp_norm,
        attn_post_norm=attn_post_norm,
        attention_weights=None,
        projections=tuple(Place(module) for module in parts.projections),
    )
    return cast(Layer, place)
