"""Checkpoints made of a small random one: one of its neurons edited, every tensor moved by noise, or both."""

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

N_LAYERS, D_MLP = 3, 40  # of the small GPT-2 of tiny_models


def changed_copy(base: Path, place: Path, *, seed: int, edited: bool = False, noise: float = 0.0) -> str:
    """A copy of a small GPT-2 at `place`, and the neuron of it that was edited: its read and write vectors are moved, at random,
    by as much as their length. noise: every tensor is moved by as much of its norm. Which neuron it is hangs on the seed."""
    shutil.copytree(base, place)
    generator = torch.Generator().manual_seed(seed)
    layer, index = random.Random(seed).randrange(N_LAYERS), random.Random(seed + 1).randrange(D_MLP)
    weights = load_file(base / "model.safetensors")
    moved = {name: _moved(tensor, noise, generator) for name, tensor in weights.items()} if noise else dict(weights)
    if edited:
        into, out = (f"transformer.h.{layer}.mlp.{name}.weight" for name in ("c_fc", "c_proj"))
        moved[into][:, index] = _moved(moved[into][:, index], 1.0, generator)
        moved[out][index] = _moved(moved[out][index], 1.0, generator)
    save(moved, place)
    return f"{layer}.{index}"


def save(weights: Mapping[str, torch.Tensor], place: Path) -> None:
    """The weights of a folder, in place of those that it had."""
    save_file(dict(weights), place / "model.safetensors", {"format": "pt"})


def retokenized(base: Path, place: Path) -> Path:
    """A copy whose tokenizer has other pieces."""
    shutil.copytree(base, place)
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = (name for name, at in vocab.items() if at in (300, 301))
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))
    return place


def _moved(tensor: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=generator)
    return tensor + noise * (share * float(tensor.norm()) / float(noise.norm()))
