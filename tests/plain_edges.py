"""Edges cut by hand in the second reading of the architectures: each part reads its own residual."""

import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.targets.base import TargetModel

PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]


@dataclass(frozen=True)
class Case:
    """One model through the seam and from its weights alone."""

    target: TargetModel
    plain: Any

    def ids(self, batch: int = 3, seed: int = 0) -> Tensor:
        """(batch, 11) random tokens, more than the sliding windows of the tiny models see."""
        made = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.target.spec.d_vocab, (batch, 11), generator=made)


def open_plain(target: TargetModel, folder: Path) -> Case:
    return Case(target, PlainModel(folder, transformers.AutoConfig.from_pretrained(folder).to_dict()))


def written(case: Case, sender: str) -> Tensor:
    """(batch, pos, d_model) what a sender writes in the last run of the second reading."""
    plain, seen = case.plain, case.plain.seen
    if sender == "embed":
        return seen["resid_pre", 0]
    if sender.startswith("mlp"):
        return seen["mlp_out", int(sender[3:])]
    layer, head = (int(part) for part in sender[1:].split("H"))
    z = seen["heads", layer][:, :, head]
    rows = slice(head * z.shape[-1], (head + 1) * z.shape[-1])
    written = z @ plain.attention_out(layer)[rows]
    if not plain.post_norm:
        return written
    spread = (seen["raw_attn_out", layer].square().mean(-1, keepdim=True) + plain.config["rms_norm_eps"]).sqrt()
    return written / spread * plain.gain(f"layers.{layer}.post_attention_layernorm")


def all_written(case: Case, ids: Tensor) -> Tensor:
    case.plain.run(ids)
    return torch.stack([written(case, sender) for sender in Wires.of(case.target.spec).senders], dim=1)


def by_hand(case: Case, ids: Tensor, other: Tensor, cut: Tensor, places: Tensor | None = None) -> Tensor:
    """Logits of the second reading in which each receiver reads its own residual. cut: (batch, n_receivers, n_senders)."""
    wires = Wires.of(case.target.spec)
    groups = {"q_in": "q", "k_in": "k", "v_in": "v"}

    def reads(value: Tensor, receiver: int) -> Tensor:
        value = value.clone()
        for row, sender in cut[:, receiver].nonzero().tolist():
            change = other[row, sender] - written(case, wires.senders[sender])[row]
            value[row] += change if places is None else change * places[row, :, None]
        return value

    def change(name: str, layer: int, value: Tensor) -> Tensor:
        if name in groups:
            numbers = wires.reads(layer, groups[name])
            return torch.stack([reads(value[:, :, at], number) for at, number in enumerate(numbers)], dim=2)
        if name == "mlp_in":
            return reads(value, wires.receivers.index(f"mlp{layer}"))
        return reads(value, wires.logits) if name == "last_in" else value

    return case.plain.run(ids, change)
