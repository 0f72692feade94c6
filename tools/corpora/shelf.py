"""Documents that lie on disk and are read when they are looked at."""

import hashlib
import json
import os
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as arrays_to_bytes

from neuronaut.tools.corpora.documents import SPLITS, Document, Split
from neuronaut.tools.corpora.order import Order
from neuronaut.tools.errors import UserError
from neuronaut.tools.files import write_whole

SHELF_VERSION = 1
Ints = NDArray[np.integer[Any]]
Origin = tuple[str, int, str | None, str | None]  # path, bytes, version and column of a file that was read


@dataclass(frozen=True)
class Placed:
    """(n,) each, in the order of the corpus: where a text begins in the file, its bytes, their crc32 and its characters; its
    group, split (a place in SPLITS) and block."""

    begin: NDArray[np.int64]
    size: NDArray[np.int32]
    crc: NDArray[np.uint32]
    characters: NDArray[np.int32]
    group: NDArray[np.int32]
    split: NDArray[np.int8]
    block: NDArray[np.int8]


@dataclass(frozen=True)
class Shelf:
    """A folder with the texts of a corpus in one file, and a table of where each lies; about 26 bytes of memory a text."""

    folder: Path
    sha256: str
    notes: tuple[str, ...]
    table: Placed

    @classmethod
    def at(cls, folder: Path) -> "Shelf | None":
        """The shelf in a folder; None where there is none, or a damaged one."""
        try:
            about = json.loads((folder / "corpus.json").read_bytes())
            raw = (folder / "table").read_bytes()
            whole = about["version"] == SHELF_VERSION and hashlib.sha256(raw).hexdigest() == about["table"]
            if not whole or (folder / "texts").stat().st_size != about["bytes"]:
                return None
            return cls(folder, about["sha256"], tuple(about["notes"]), Placed(**load_arrays(raw)))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    @classmethod
    def written(
        cls, folder: Path, order: Order, lies: "Lies", notes: tuple[str, ...], origin: Sequence[Origin]
    ) -> "Shelf":
        """Puts the table beside the file `texts` of the folder. lies: where each text lies, as they were read."""
        at = order.at
        begin, size, crc, characters = lies.begin[at], lies.size[at], lies.crc[at], lies.characters[at]
        table = Placed(begin, size, crc, characters, order.group, order.split, order.block)
        raw = arrays_to_bytes(vars(table))
        about = {
            "version": SHELF_VERSION,
            "sha256": order.sha256,
            "notes": notes,
            "origin": origin,
            "table": hashlib.sha256(raw).hexdigest(),
            "bytes": (folder / "texts").stat().st_size,
        }
        write_whole(folder / "table", raw)
        write_whole(folder / "corpus.json", json.dumps(about, indent=1).encode())
        return cls(folder, order.sha256, notes, table)

    @cached_property
    def _file(self) -> int:
        return os.open(self.folder / "texts", os.O_RDONLY)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __del__(self) -> None:
        if "_file" in vars(self):
            os.close(self._file)

    def text(self, at: int) -> str:
        """The text of a document. Refuses one that is not as it was written."""
        table = self.table
        raw = os.pread(self._file, int(table.size[at]), int(table.begin[at]))
        if zlib.crc32(raw) != table.crc[at]:
            raise UserError(
                f"the kept copy of the corpus is damaged: remove {str(self.folder)!r}, and it is made again from the "
                "corpus itself"
            )
        return raw.decode()

    def document(self, at: int) -> Document:
        """A document, in the order of the corpus."""
        table = self.table
        return Document(self.text(at), int(table.group[at]), SPLITS[table.split[at]], int(table.block[at]))


@dataclass(frozen=True)
class Lies:
    """(n,) each, as they were read: where a text begins in the file, its bytes, their crc32 and its characters."""

    begin: NDArray[np.int64]
    size: NDArray[np.int32]
    crc: NDArray[np.uint32]
    characters: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ShelvedDocuments(Sequence[Document]):
    """Some documents of a shelf, each read when it is looked at; a slice reads nothing."""

    shelf: Shelf
    at: Ints

    @classmethod
    def of(cls, shelf: Shelf) -> "ShelvedDocuments":
        """All of them."""
        return cls(shelf, np.arange(len(shelf.table.group), dtype=np.int32))

    @overload
    def __getitem__(self, place: int) -> Document: ...
    @overload
    def __getitem__(self, place: slice) -> "ShelvedDocuments": ...
    def __getitem__(self, place: int | slice) -> "Document | ShelvedDocuments":
        if isinstance(place, slice):
            return ShelvedDocuments(self.shelf, self.at[place])
        return self.shelf.document(int(self.at[place]))

    def __len__(self) -> int:
        return len(self.at)

    def __iter__(self) -> Iterator[Document]:
        return (self.shelf.document(at) for at in self.at.tolist())

    def where(self, split: Split, block: int | None) -> "ShelvedDocuments":
        """Those of a split and block."""
        table = self.shelf.table
        wanted = table.split[self.at] == SPLITS.index(split)
        if block is not None:
            wanted &= table.block[self.at] == block
        return ShelvedDocuments(self.shelf, self.at[wanted])

    def in_groups(self, groups: Collection[int]) -> "ShelvedDocuments":
        """Those of some groups."""
        wanted = np.array(sorted(groups), dtype=np.int32)
        begins, ends = (np.searchsorted(self.groups, wanted, side=side) for side in ("left", "right"))
        parts = [self.at[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        return ShelvedDocuments(self.shelf, np.concatenate([self.at[:0], *parts]))

    @cached_property
    def groups(self) -> NDArray[np.int32]:
        """(n,) the group of each, rising."""
        return self.shelf.table.group[self.at]

    @property
    def characters(self) -> NDArray[np.int32]:
        """(n,) the length of each text."""
        return self.shelf.table.characters[self.at]
