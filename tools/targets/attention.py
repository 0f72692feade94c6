"""The weights of a layer's attention, head by head, in whatever order the model stores them."""

from typing import Any

import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import AttentionWeights, ModelSpec


def attention_weights_of(bridge: Any, spec: ModelSpec, layer: int) -> AttentionWeights:
    """The weights of a bridged attention. Refuses one whose weights are not those of the heads that the model says it has."""
    found = []
    for part, n_heads in (("Q", spec.n_heads), ("K", spec.n_kv_heads), ("V", spec.n_kv_heads), ("O", spec.n_heads)):
        weight = getattr(bridge, f"W_{part}").detach().float()
        shape = (n_heads, spec.d_head, spec.d_model) if part == "O" else (n_heads, spec.d_model, spec.d_head)
        if tuple(weight.shape) != shape:
            raise ToolRefused(
                f"W_{part} of layer {layer} of {spec.name} is {tuple(weight.shape)} and not {shape}: its attention is "
                "built in a way that is not known"
            )
        found.append(weight)
    shapes = {part: (weight.shape[0], spec.d_head) for part, weight in zip("QKV", found, strict=False)}
    biases = [_bias(bridge, part, shape) for part, shape in (shapes | {"O": (spec.d_model,)}).items()]
    return AttentionWeights(*found, *biases)


def _bias(bridge: Any, part: str, shape: tuple[int, ...]) -> Tensor:
    bias = getattr(bridge, f"b_{part}", None)
    return torch.zeros(shape, device=bridge.W_O.device) if bias is None else bias.detach().float().reshape(shape)
