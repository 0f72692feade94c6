"""Values between torch, in which the seam speaks, and mlx, and edits made in mlx."""

from typing import assert_never

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Edit

DTYPES = {torch.float32: mx.float32, torch.bfloat16: mx.bfloat16, torch.float16: mx.float16}


def to_torch(value: mx.array, *, copied: bool = False) -> Tensor:
    """The same numbers, in float32 where they are of a shorter format; they share memory unless `copied`."""
    if value.dtype in (mx.bfloat16, mx.float16):
        value = value.astype(mx.float32)
    return torch.from_numpy(np.array(value, copy=copied))


def to_mlx(value: Tensor | float, dtype: mx.Dtype) -> mx.array:
    """The same numbers in a format of mlx."""
    if not isinstance(value, Tensor):
        return mx.array(value, dtype=dtype)
    value = value.detach()
    return mx.array((value.float() if value.dtype == torch.bfloat16 else value).numpy()).astype(dtype)


def weight_in(module: nn.Module, expert: int | None = None) -> mx.array:
    """(n_out, n_in) the weights of a module, of quantised ones what they stand for; expert: those of one, where it holds many."""
    held = [module.weight, module.get("scales"), module.get("biases")]
    weight, scales, biases = held if expert is None else (None if one is None else one[expert] for one in held)
    if scales is None:
        return weight
    return mx.dequantize(weight, scales, biases, module.group_size, module.bits, mode=module.mode)


def edited(value: mx.array, edit: Edit) -> mx.array:
    """The activation with one edit made; value is (batch, pos, width) or (batch, pos, n_heads, d_head)."""
    part = value if edit.index is None else value[:, :, edit.index]
    number, at = to_mlx(edit.value, part.dtype), _places(edit.positions, part.ndim)
    try:
        match edit.how:
            case "set":
                new = mx.broadcast_to(number, part.shape)
            case "add":
                new = part + number
            case "scale":
                new = part * number
            case _ as never:
                assert_never(never)
        new = new if at is None else mx.where(at, new, part)
    except ValueError:
        new = None
    if new is None or new.shape != part.shape:
        where = "" if edit.positions is None else f" at positions {tuple(edit.positions.shape)}"
        raise ToolRefused(
            f"a value {tuple(number.shape)}{where} does not fit {edit.site}, which is {tuple(part.shape)} here"
        )
    if edit.index is None:
        return new
    return mx.slice_update(value, mx.expand_dims(new, 2), mx.array([edit.index]), [2])


def _places(positions: Tensor | None, n_dims: int) -> mx.array | None:
    """(batch, pos, 1…) bool."""
    if positions is None:
        return None
    return mx.array(positions.reshape(*positions.shape, *[1] * (n_dims - 2)).numpy())
