"""What a checkpoint becomes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Converted:
    """A Hugging Face model that computes the same. notes: what a reader should know of it, each a sentence without its full stop."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    notes: list[str]


def tied_to(embed: Tensor, unembed: Tensor) -> bool:
    """Whether one matrix, (d_vocab, d_model), is both."""
    return embed.shape == unembed.shape and torch.equal(embed, unembed)
