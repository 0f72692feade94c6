"""Rotary angles by hand, in the forms in which models stretch them: Llama 3's and YaRN's; nothing of transformers."""

import math
from typing import Any

import torch
from torch import Tensor


def cos_and_sin(rope: dict[str, Any], n_turned: int, n_pos: int) -> tuple[Tensor, Tensor]:
    """(n_pos, n_turned / 2) each, of the first `n_turned` numbers of a head."""
    half = n_turned // 2
    speeds = float(rope["rope_theta"]) ** -(torch.arange(half, dtype=torch.float64) / half)
    scale = 1.0
    if rope.get("rope_type") == "llama3":
        speeds = _llama3(speeds, rope)
    if rope.get("rope_type") == "yarn":
        speeds, scale = _yarn(speeds, rope, n_turned)
    angles = torch.arange(n_pos)[:, None] * speeds
    return (angles.cos() * scale).float(), (angles.sin() * scale).float()


def _llama3(speeds: Tensor, rope: dict[str, Any]) -> Tensor:
    """Slow turns are slowed down by the factor, fast ones kept, those between mixed."""
    turns = rope["original_max_position_embeddings"] * speeds / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * speeds + (1 - kept) * speeds / rope["factor"]


def _yarn(speeds: Tensor, rope: dict[str, Any], n_turned: int) -> tuple[Tensor, float]:
    """Source: Peng et al. 2023, YaRN, section 3.2 to 3.4."""
    theta, before = float(rope["rope_theta"]), rope["original_max_position_embeddings"]

    def pair_that_turns(n: float) -> float:
        return n_turned * math.log(before / (n * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(rope["beta_fast"]), pair_that_turns(rope["beta_slow"])
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, n_turned - 1)
    slowed = ((torch.arange(len(speeds), dtype=torch.float64) - first) / max(last - first, 0.001)).clamp(0, 1)
    return slowed * speeds / rope["factor"] + (1 - slowed) * speeds, 0.1 * math.log(rope["factor"]) + 1.0
