"""Checkpoints made of a small random one: one of its neurons edited, every tensor moved by noise, or both."""

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

N_LAYERS, D_MLP = 3, 40  # of the small GPT-2 of tiny_models


def widened(base: Path, place: Path, d_mlp: int) -> Path:
    """A small GPT-2 with so many neurons in each layer, drawn anew."""
    shutil.copytree(base, place)
    generator, weights = torch.Generator().manual_seed(0), load_file(base / "model.safetensors")
    for name, tensor in weights.items():
        if ".mlp." in name and not name.endswith("c_proj.bias"):
            shape = [d_mlp if size == D_MLP else size for size in tensor.shape]
            weights[name] = torch.randn(shape, generator=generator) * tensor.std()
    save(weights, place)
    config = json.loads((place / "config.json").read_text()) | {"n_inner": d_mlp}
    (place / "config.json").write_text(json.dumps(config))
    return place


def changed_copy(
    base: Path, place: Path, *, seed: int, edited: bool = False, noise: float = 0.0, d_mlp: int = D_MLP
) -> str:
    """A copy of a small GPT-2 at `place`, and the neuron of it that was edited: its read and write vectors are moved, at random,
    by as much as their length. noise: every tensor is moved by as much of its norm. Which neuron it is hangs on the seed."""
    shutil.copytree(base, place)
    generator = torch.Generator().manual_seed(seed)
    layer, index = random.Random(seed).randrange(N_LAYERS), random.Random(seed + 1).randrange(d_mlp)
    weights = load_file(base / "model.safetensors")
    moved = {name: _moved(tensor, noise, generator) for name, tensor in weights.items()} if noise else dict(weights)
    if edited:
        into, out = (f"transformer.h.{layer}.mlp.{name}.weight" for name in ("c_fc", "c_proj"))
        moved[into][:, index] = _moved(moved[into][:, index], 1.0, generator)
        moved[out][index] = _moved(moved[out][index], 1.0, generator)
    save(moved, place)
    return f"{layer}.{index}"


def planted_copy(base: Path, place: Path, rules: Mapping[int, str], *, noise: float = 0.0, seed: int = 0) -> Path:
    """A copy of a small GPT-2 whose neurons of layer 0 fire on a word each, and on no other; index to word. Attention of the layer
    and places are all but silent there, so that a neuron sees the token. noise: as in `changed_copy`."""
    shutil.copytree(base, place)
    weights = load_file(base / "model.safetensors")
    tokens = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(name for name in tokens if name.lstrip("\u0120").isalpha() and len(name) > 2)
    for name in ("wpe.weight", "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias"):
        weights[f"transformer.{name}"] = weights[f"transformer.{name}"] * 0.01
    rows = weights["transformer.wte.weight"][[tokens[word] for word in words]]
    gain, shift = (weights[f"transformer.h.0.ln_2.{name}"] for name in ("weight", "bias"))
    seen = torch.nn.functional.layer_norm(rows, rows.shape[1:], gain, shift)
    seen = torch.cat([seen, torch.ones(len(seen), 1)], dim=1).double()
    for index, word in rules.items():
        wanted = torch.tensor([3.0 if name == "\u0120" + word else -3.0 for name in words], dtype=torch.float64)
        read = torch.linalg.lstsq(seen, wanted[:, None], driver="gelsd").solution[:, 0].float()
        weights["transformer.h.0.mlp.c_fc.weight"][:, index] = read[:-1]
        weights["transformer.h.0.mlp.c_fc.bias"][index] = read[-1]
    generator = torch.Generator().manual_seed(seed)
    save({name: _moved(tensor, noise, generator) if noise else tensor for name, tensor in weights.items()}, place)
    return place


def word_texts(file: Path, rare: Mapping[str, int] | None = None, *, words: str, documents: int = 450) -> Path:
    """Texts of 18 of some words in random order, one a line; each begins with a space, so that a word is always the same token.
    rare: words that stand in so many of the first documents only."""
    rng, held = random.Random(0), dict(rare or {})
    lines = []
    for number in range(documents):
        known = [word for word in words.split() if number < held.get(word, documents)]
        lines.append(json.dumps({"text": "".join(f" {rng.choice(known)}" for _ in range(18))}) + "\n")
    file.write_text("".join(lines), encoding="utf-8")
    return file


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
