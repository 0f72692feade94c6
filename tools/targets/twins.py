"""Untrained twins of a model: the same architecture with its matrices drawn anew, or with their rows shuffled."""

import hashlib
import shutil
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save

from neuronaut.tools.files import cache_folder, write_whole
from neuronaut.tools.targets.folder import ModelFolder

Twin = Literal["random-init", "row-shuffled"]
TWINS: tuple[Twin, ...] = get_args(Twin)
COPIED = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def twin_weights(weights: Mapping[str, torch.Tensor], kind: Twin, seed: int) -> dict[str, torch.Tensor]:
    """Every matrix drawn anew from a normal distribution of its own mean and deviation, or with its rows shuffled; vectors
    (norms and biases) stay."""
    made = {}
    for name in sorted(weights):
        tensor = weights[name]
        digest = hashlib.sha256(f"{kind} {seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        if tensor.dim() < 2:
            made[name] = tensor.clone()
        elif kind == "random-init":
            values = tensor.float()
            noise = torch.randn(tensor.shape, generator=generator)
            made[name] = (noise * values.std() + values.mean()).to(tensor.dtype)
        else:
            made[name] = tensor[torch.randperm(len(tensor), generator=generator)].contiguous()
    return made


def twin_folder(folder: ModelFolder, kind: Twin, seed: int) -> ModelFolder:
    """The folder of a twin, made once and kept in the cache by the hash of its weights' recipe."""
    digest = hashlib.sha256()
    for file in folder.weights:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(f"{kind} {seed}".encode())
    kept = cache_folder().parent / "twins" / digest.hexdigest()[:16]
    if not (kept / "model.safetensors").exists():
        kept.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            if (folder.path / name).is_file():
                shutil.copy(folder.path / name, kept / name)
        weights = {name: tensor for file in folder.weights for name, tensor in load_file(file).items()}
        write_whole(kept / "model.safetensors", save(twin_weights(weights, kind, seed), {"format": "pt"}))
    return ModelFolder(kept, f"{folder.name} {kind}")
