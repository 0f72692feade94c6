"""The residual stream of a whole text between two layers, on disk: what one layer leaves is what the next one begins with."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.files import write_whole

ABOUT = "about.json"
LOCK = "lock"


@dataclass
class Tape:
    """Blocks that each layer reads in the order in which the layer before wrote them.

    layer: the one that is run next; what it begins with is whole on disk. Files are written and read, not mapped: pages of a
    mapped file would count as memory of the process.
    """

    folder: Path
    about: dict[str, Any]
    dtype: torch.dtype
    layer: int = 0
    _in: BinaryIO | None = field(default=None, init=False, repr=False)
    _out: BinaryIO | None = field(default=None, init=False, repr=False)

    @classmethod
    @contextmanager
    def at(cls, folder: Path, about: dict[str, Any], dtype: torch.dtype, first: int) -> Iterator[Self]:
        """The tape in a folder of its own, from where it was stopped, if that is not behind layer `first`.

        about: what text and model it is of; another one begins anew. Refuses a folder that another process works in.
        """
        tape = cls(folder, about, dtype)
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((folder / LOCK).open("wb"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another process streams the same layers over the same text: wait for it, or divide the work with --shard"
                ) from None
            except OSError as error:
                raise tape._refused(error) from error
            known = tape._known()
            tape.layer = known if known <= first else 0
            yield tape

    @contextmanager
    def through(self, layer: int, *, keep: bool) -> Iterator[None]:
        """While a layer is run over the text. keep: another one follows. What the layer leaves goes on from here, after a crash
        too, once all of it is there."""
        try:
            with ExitStack() as stack:
                self._in = stack.enter_context(self._path(layer).open("rb")) if layer else None
                self._out = stack.enter_context(self._path(layer + 1).open("wb")) if keep else None
                yield
                if self._out is None:
                    return
                self._out.flush()
                os.fsync(self._out.fileno())
                size = self._out.tell()
        except OSError as error:
            raise self._refused(error) from error
        self.layer = layer + 1
        write_whole(self.folder / ABOUT, json.dumps({**self.about, "layer": self.layer, "bytes": size}).encode())
        self._path(layer).unlink(missing_ok=True)

    def next(self, shape: tuple[int, ...]) -> Tensor:
        """The next block of what the layer before left. Fails where it is shorter than what was left."""
        assert self._in is not None
        raw = self._in.read(torch.Size(shape).numel() * self.dtype.itemsize)
        return torch.frombuffer(bytearray(raw), dtype=self.dtype).view(shape)

    def add(self, block: Tensor) -> None:
        """What the layer leaves of the block."""
        if self._out is not None:
            self._out.write(block.to(self.dtype).contiguous().view(torch.uint8).numpy().data)

    def remove(self) -> None:
        """Takes it from the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _known(self) -> int:
        try:
            kept = json.loads((self.folder / ABOUT).read_bytes())
            layer = int(kept.pop("layer"))
            whole = kept.pop("bytes") == self._path(layer).stat().st_size
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0
        return layer if whole and kept == json.loads(json.dumps(self.about)) else 0

    def _path(self, layer: int) -> Path:
        return self.folder / f"residual-{layer:03d}"

    def _refused(self, error: OSError) -> UserError:
        return UserError(
            f"the residual stream between two layers cannot be kept in {str(self.folder)!r} ({error.strerror}): free some space, "
            "or set $NEURONAUT_CACHE to a folder that has it"
        )
