"""Changes that make a model folder a bad one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

Change = Callable[[Path], None]
WEIGHTS = "model.safetensors"


def config(**changes: object) -> Change:
    """config.json with other values."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def weights(change: Callable[[bytes], bytes]) -> Change:
    """Other bytes of weights."""
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes())) and None


def header(change: Callable[[dict[str, Any]], None]) -> Change:
    """Another header in front of the same weights."""

    def changed(raw: bytes) -> bytes:
        length = int.from_bytes(raw[:8], "little")
        rows = json.loads(raw[8 : 8 + length])
        change(rows)
        new = json.dumps(rows).encode()
        return len(new).to_bytes(8, "little") + new + raw[8 + length :]

    return weights(changed)


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content) and None


def moved(name: str, to: str) -> Change:
    return lambda folder: (folder / name).rename(folder / to) and None


def of_more_tokens(folder: Path) -> None:
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    used = set(said["model"]["vocab"].values())
    free = (number for number in range(1000) if number not in used)
    said["model"]["vocab"] |= {f"▁word{i}": next(free) for i in range(400 - len(used))}
    file.write_text(json.dumps(said))


def shards(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    named = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))


def shaped(rows: dict[str, Any]) -> None:
    rows["model.norm.weight"]["shape"] = [10**12, 10**6]


def backwards(rows: dict[str, Any]) -> None:
    rows["model.norm.weight"]["shape"] = [-32]


def overlapping(rows: dict[str, Any]) -> None:
    one, other = (rows[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in (0, 1))
    other["data_offsets"] = one["data_offsets"]


def formatted(rows: dict[str, Any]) -> None:
    rows["model.norm.weight"]["dtype"] = "Q3"


def fifo(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def without(name: str) -> Change:
    """The same weights but one, in a file that is whole."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        del tensors[name]
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return change
