"""Attention that hands out its pattern at about the cost of the fast one, which makes none."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

SEEN = "neuronaut_seen"
SHORT = 128  # up to so many tokens, mixing values by the pattern costs no more than fast attention


@cache
def register_seen_attention() -> str:
    """The name under which transformers finds attention that also hands out its pattern.

    In windows longer than SHORT what is mixed comes from fast attention, and is the same bit for bit as without the pattern.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    def seen(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        pattern = pattern_of(query, key, attention_mask, options.get("scaling"))
        if query.shape[2] <= SHORT:
            return (pattern @ _of_queries(value, query.shape[1])).transpose(1, 2), pattern
        mixed, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return mixed, pattern

    AttentionInterface.register(SEEN, seen)
    AttentionMaskInterface.register(SEEN, sdpa_mask)
    return SEEN


def pattern_of(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """(batch, n_heads, query, key) shares of attention that fast attention gives.

    query: (batch, n_heads, pos, d_head), key: (batch, n_kv_heads, pos, d_head), turned to their places already. mask: bool or
    added, broadcasts to the pattern; None is causal. scaling: of the products, 1/√d_head where None.
    """
    batch, n_heads, pos, d_head = query.shape
    key = _of_queries(key, n_heads)
    if mask is None:
        added = torch.full((pos, pos), -torch.inf, dtype=query.dtype).triu_(1)[None]
    elif mask.dtype == torch.bool:
        added = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    else:
        added = mask
    added = added if added.dim() == 3 else added.expand(batch, n_heads, pos, pos).reshape(-1, pos, pos)
    scores = torch.baddbmm(
        added,
        query.flatten(0, 1),
        key.flatten(0, 1).transpose(1, 2),
        alpha=d_head**-0.5 if scaling is None else scaling,
    )
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype).view(batch, n_heads, pos, pos)


def _of_queries(grouped: Tensor, n_heads: int) -> Tensor:
    """(batch, n_heads, pos, d_head) the keys or values that each query head uses."""
    times = n_heads // grouped.shape[1]
    return grouped if times == 1 else grouped.repeat_interleave(times, dim=1)
