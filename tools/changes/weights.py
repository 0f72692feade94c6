"""The weight files of two checkpoints, tensor by tensor, and noise twins: the same amount of change, without direction."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.twins import COPIED

_OUTER = re.compile(r"^(?:transformer|model|gpt_neox)\.")  # what some versions of a format put before every name
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


@runtime_checkable
class OnDisk(Protocol):
    """A target whose weights lie in files."""

    @property
    def folder(self) -> ModelFolder: ...


def folder_of(target: TargetModel) -> ModelFolder:
    """Where the weights of a target lie. Refuses one that was made in memory."""
    if not isinstance(target, OnDisk):
        raise ToolRefused(f"{target.spec.name} has no weight files of its own: give a model that lies in a folder")
    return target.folder


class Weights:
    """The tensors of a folder by name, read one at a time."""

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder
        self._where: dict[str, tuple[Path, str]] = {}
        for file in folder.weights:
            with safe_open(file, "pt") as opened:
                self._where |= {_OUTER.sub("", name): (file, name) for name in opened.keys()}  # noqa: SIM118  no mapping

    @property
    def names(self) -> set[str]:
        """The names, without what some versions of a format put before each of them."""
        return set(self._where)

    def stored_name(self, name: str) -> str:
        """What it is called in its file."""
        return self._where[name][1]

    def __getitem__(self, name: str) -> Tensor:
        file, stored = self._where[name]
        with safe_open(file, "pt") as opened:
            return opened.get_tensor(stored)


@dataclass(frozen=True)
class Tensors:
    """One tensor of both: its norm in the first one, and that of its change."""

    name: str
    norm: float
    change: float

    @property
    def layer(self) -> int | None:
        """The layer that the name speaks of."""
        match = _LAYER.search(self.name)
        return int(match[1]) if match else None

    @property
    def part(self) -> str:
        """The name without the number of its layer and what stands before it."""
        match = _LAYER.search(self.name)
        return self.name[match.end() :] if match else self.name

    @property
    def relative(self) -> float | None:
        """The change as a share of the norm; None for a tensor of zeros."""
        return self.change / self.norm if self.norm else None


@dataclass(frozen=True)
class Compared:
    """The weight files of two checkpoints. unlike: names that only one of them has, or in another shape."""

    before: Weights
    after: Weights
    tensors: tuple[Tensors, ...]
    unlike: tuple[str, ...]

    @cached_property
    def changed(self) -> tuple[Tensors, ...]:
        """Those that are not the same in both."""
        return tuple(one for one in self.tensors if one.change)


def compared(before: ModelFolder, after: ModelFolder) -> Compared:
    """Both checkpoints, tensor by tensor. Refuses weights that have nothing in common, that are packed, or all the same."""
    one, other = Weights(before), Weights(after)
    rows, unlike = [], sorted(one.names ^ other.names)
    for name in sorted(one.names & other.names):
        was, now = one[name], other[name]
        if was.shape != now.shape:
            unlike.append(name)
        elif was.is_floating_point() and now.is_floating_point():
            was, now = was.float(), now.float()
            rows.append(Tensors(name, float(was.norm()), float((now - was).norm())))
        elif not torch.equal(was, now):
            raise ToolRefused(
                f"{name} of {after.name} is packed ({now.dtype}), and what changed in packed weights has no norm: give both "
                "checkpoints as plain numbers"
            )
    if not rows:
        raise ToolRefused(
            f"{before.name} and {after.name} have no tensor in common: they are no checkpoints of one model"
        )
    if not any(row.change for row in rows):
        raise ToolRefused(
            f"nothing changed: all {len(rows)} tensors of {after.name} are those of {before.name}, number by number"
        )
    return Compared(one, other, tuple(rows), tuple(unlike))


def noise_folder(found: Compared, seed: int, place: Path) -> ModelFolder:
    """A checkpoint, made at `place`, in which each tensor is that of the first one plus normal noise of the norm of its
    change."""
    place.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (found.before.folder.path / name).is_file():
            shutil.copy(found.before.folder.path / name, place / name)
    save_file(dict(_noised(found, seed)), place / "model.safetensors", {"format": "pt"})
    return ModelFolder(place, f"{found.before.folder.name} and noise {seed}")


def _noised(found: Compared, seed: int) -> Iterator[tuple[str, Tensor]]:
    change = {one.name: one.change for one in found.tensors}
    for name in sorted(found.before.names):
        tensor, wanted = found.before[name], change.get(name, 0.0)
        if wanted:
            digest = hashlib.sha256(f"noise {seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            noise = torch.randn(tensor.shape, generator=generator)
            tensor = tensor.float() + noise * (wanted / float(noise.norm()))
        yield found.before.stored_name(name), tensor.contiguous()
