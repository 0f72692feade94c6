"""The folder of one index: shards that are written whole, each with a manifest of its own."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as arrays_to_bytes

from neuronaut.tools.corpus import Corpus
from neuronaut.tools.files import write_whole
from neuronaut.tools.kinds.base import Arrays, IndexSettings
from neuronaut.tools.targets.base import TargetModel

INDEX_VERSION = 2
ABOUT = "about.json"
ORIGIN = "origin.json"
State = Literal["done", "missing", "damaged"]


def about_index(target: TargetModel, corpus: Corpus, settings: IndexSettings) -> dict[str, Any]:
    """What an index is of; equal ones are one index, whose shards may be made anywhere."""
    return {
        "format": "neuronaut index",
        "version": INDEX_VERSION,
        "target": asdict(target.fingerprint()),
        "corpus": corpus.sha256,
        "documents": corpus.n_groups("explore"),
        "settings": asdict(settings),
    }


def key_of(about: dict[str, Any]) -> str:
    """The name of the folder of an index."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ShardStore:
    """The shards of an index. Several processes may write different shards, or the same ones, at the same time.

    folder/PART/shard-00000.safetensors and, written after it, shard-00000.json with its checksum. notes: what was damaged.
    """

    folder: Path
    about: dict[str, Any]
    notes: list[str] = field(default_factory=list, compare=False)

    @property
    def settings(self) -> IndexSettings:
        """What the index keeps."""
        return IndexSettings(**self.about["settings"])

    @property
    def n_shards(self) -> int:
        """Shards of each part."""
        return -(-int(self.about["documents"]) // self.settings.shard)

    def state(self, part: str, number: int) -> State:
        """Whether a shard is there and whole."""
        return self._read(part, number)[0]

    def load(self, part: str, number: int) -> Arrays | None:
        """The arrays of a shard; None where it is missing or damaged, and damage is noted."""
        state, raw = self._read(part, number)
        if state == "damaged":
            self.notes.append(f"shard {number} of {part} was damaged and had to be made again")
        return load_arrays(raw) if state == "done" else None

    def save(self, part: str, number: int, arrays: Arrays) -> None:
        """Stores a shard whole or not at all. Refuses, in one sentence, where it cannot be stored."""
        raw = arrays_to_bytes({name: np.array(array, order="C") for name, array in arrays.items()})
        self.put(part, number, raw)

    def put(self, part: str, number: int, raw: bytes) -> None:
        """Stores the bytes of a shard."""
        if not (self.folder / ABOUT).is_file():
            write_whole(self.folder / ABOUT, json.dumps(self.about, indent=1, sort_keys=True).encode())
        path = self._path(part, number)
        path.with_suffix(".json").unlink(missing_ok=True)
        write_whole(path, raw)
        manifest = {"part": part, "shard": number, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        write_whole(path.with_suffix(".json"), json.dumps(manifest).encode())

    def note_origin(self, model: str, corpus: str | None) -> None:
        """Keeps by which names model and corpus were given, so that it can be seen when they are gone."""
        write_whole(self.folder / ORIGIN, json.dumps({"model": model, "corpus": corpus}).encode())

    def raw(self, part: str, number: int) -> bytes | None:
        """The bytes of a whole shard."""
        state, raw = self._read(part, number)
        return raw if state == "done" else None

    def parts(self) -> list[str]:
        """Parts of which anything is there."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def numbers(self, part: str) -> list[int]:
        """Shards of a part that are there in whatever state, by number."""
        paths = (self.folder / part).glob("shard-*.*")
        return sorted({int(path.stem[6:]) for path in paths if path.stem[6:].isdigit()})

    def size(self, part: str) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in (self.folder / part).glob("*"))

    def _path(self, part: str, number: int) -> Path:
        return self.folder / part / f"shard-{number:05d}.safetensors"

    def _read(self, part: str, number: int) -> tuple[State, bytes]:
        path = self._path(part, number)
        if not path.with_suffix(".json").is_file():
            return "missing", b""
        try:
            wanted = json.loads(path.with_suffix(".json").read_bytes())["sha256"]
        except (ValueError, KeyError, TypeError):
            return "damaged", b""
        raw = path.read_bytes() if path.is_file() else b""
        return ("done" if hashlib.sha256(raw).hexdigest() == wanted else "damaged"), raw


def stores_in(folder: Path) -> Iterator[ShardStore]:
    """The indexes of this version in a folder of indexes, or in the folder of one."""
    for path in [folder, *sorted(folder.iterdir())] if folder.is_dir() else []:
        about = about_in(path)
        if about is not None and about.get("format") == "neuronaut index" and about.get("version") == INDEX_VERSION:
            yield ShardStore(path, about)


def about_in(folder: Path) -> dict[str, Any] | None:
    """What the folder of an index says that it is; None where it does not."""
    path = folder / ABOUT
    try:
        about = json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError:
        return None
    return about if isinstance(about, dict) else None
