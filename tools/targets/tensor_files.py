"""Tensors of safetensors files, read one at a time with pread: pages of a mapped file would count as memory of the process."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.weight_files import stored_in

FORMATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies. begin: its first byte."""

    file: Path
    format: str
    shape: tuple[int, ...]
    begin: int

    def read(self, first: int, n: int) -> Tensor:
        """(n,) elements from `first` on, in the format of the file. Fails where the file was cut since it was opened."""
        size = FORMATS[self.format].itemsize
        raw = bytearray(n * size)
        view, at = memoryview(raw), 0
        with self.file.open("rb", buffering=0) as stream:
            while at < len(raw):
                read = os.preadv(stream.fileno(), [view[at:]], self.begin + first * size + at)
                if not read:
                    raise UserError(
                        f"{self.file.name} was cut short while it was read: download or convert the model again"
                    )
                at += read
        return torch.frombuffer(raw, dtype=FORMATS[self.format]) if raw else torch.zeros(0)


@dataclass(frozen=True)
class TensorFiles:
    """The weights of a model folder, by name. shapes: of all of them."""

    folder: str
    places: dict[str, _Place]

    @classmethod
    def of(cls, folder: ModelFolder) -> Self:
        """By the headers alone. Refuses files that are damaged."""
        found = [(one, one.file) for one in stored_in(folder)]
        return cls(
            str(folder.path),
            {one.name: _Place(file, one.dtype, one.shape, one.begin) for one, file in found if file is not None},
        )

    def checked(self, name: str, shape: Sequence[int], *, without: str = "") -> str:
        """The name under which a tensor of a shape is stored, its prefix `without` left out where the file has none.

        Refuses one that is missing, has another shape, or a format that is not read.
        """
        stored = next((one for one in (name, name.removeprefix(without)) if one in self.places), None)
        if stored is None:
            raise UserError(
                f"the weights in {self.folder!r} lack {name!r}: it would be random, so download or convert the model again"
            )
        place = self.places[stored]
        if place.shape != tuple(shape):
            raise UserError(
                f"the model in {self.folder!r} cannot be loaded: config.json does not fit the weights: {stored} has shape "
                f"{list(place.shape)}, not {list(shape)}: take both from the same model"
            )
        if place.format not in FORMATS:
            raise UserError(
                f"the weights in {self.folder!r} cannot be streamed: {stored} is stored as {place.format[:20]!r}; give them in "
                "bfloat16 or float32"
            )
        return stored

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A whole tensor."""
        place = self.places[name]
        n = 1
        for size in place.shape:
            n *= size
        return place.read(0, n).view(place.shape).to(dtype)

    def rows(self, name: str, rows: Sequence[int], dtype: torch.dtype) -> Tensor:
        """(n_rows, width) some rows of a matrix."""
        place = self.places[name]
        width = place.shape[1]
        found = torch.empty(len(rows), width, dtype=dtype)
        for at, row in enumerate(rows):
            found[at] = place.read(row * width, width)
        return found
