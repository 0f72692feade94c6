"""Activations of all neurons on the explore sample, kept on disk beside the index, so that `ask` need not read it again.

Values are stored exactly, and those that are 0 not at all: a ReLU layer takes little room. A layer that would take too
much is left out, and is read from the model when it is asked for.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as arrays_to_bytes

from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.files import cache_folder, write_whole
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens

STORED_VERSION = 1
LAYER_BYTES = 96 << 20
ABOUT = "about.json"
ENTRY_BYTES = 8  # a float32 and its place
Progress = Callable[[int, int], None]
Ints = NDArray[np.integer]
Floats = NDArray[np.float32]


@dataclass
class _Entries:
    """The activations of one layer that are not 0; None once there are too many to be kept."""

    parts: list[tuple[Ints, Ints, Floats]] | None
    count: int = 0

    def add(self, units: Ints, places: Ints, values: Floats, *, share: float) -> None:
        """share: of the sample that is read, these included. A layer that heads for twice the room is given up early."""
        self.count += len(values)
        if self.parts is not None:
            self.parts.append((units, places, values))
        if max(self.count, self.count / share / 2) * ENTRY_BYTES > LAYER_BYTES:
            self.parts = None


@dataclass(frozen=True)
class StoredActivations:
    """The layers of one target, on the first `n_tokens` explore tokens of one corpus, that lie in `folder`."""

    folder: Path
    n_tokens: int
    about: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls, target: TargetModel, corpus: Corpus, n_tokens: int, *, cache: Path | None = None
    ) -> "StoredActivations":
        """Where they lie, whether or not any are there. cache: the folder of all indexes; None is `cache_folder()`."""
        about = {
            "version": STORED_VERSION,
            "target": asdict(target.fingerprint()),
            "corpus": corpus.sha256,
            "n_tokens": n_tokens,
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return cls((cache or cache_folder()) / f"activations-{key[:32]}", n_tokens, about)

    def layer(self, layer: int, indices: Ints) -> Floats | None:
        """(n_indices, n_windows, n_pos) of some neurons, 0 at padding; None where the layer is not there or damaged."""
        path = self._file(layer)
        raw = path.read_bytes() if path.is_file() else b""
        if raw[:32] != hashlib.sha256(raw[32:]).digest():
            return None
        arrays = load_arrays(raw[32:])
        n_windows, n_pos = arrays["shape"].tolist()
        found = np.zeros((len(indices), n_windows * n_pos), dtype=np.float32)
        for row, index in zip(found, indices.tolist(), strict=True):
            part = slice(*arrays["begins"][index : index + 2].tolist())
            row[arrays["places"][part]] = arrays["values"][part]
        return found.reshape(len(indices), n_windows, n_pos)

    def layers(self, n_layers: int) -> tuple[int, ...]:
        """The layers that are there."""
        return tuple(layer for layer in range(n_layers) if self._file(layer).is_file())

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("layer-*"))

    def save(self, layer: int, d_mlp: int, sample: Tokens, parts: Sequence[tuple[Ints, Ints, Floats]]) -> None:
        """Keeps what is not 0 of a layer: for each part units, places (window · n_pos + position) and values."""
        units, places, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(units, kind="stable")
        arrays = {
            "shape": np.array(sample.ids.shape),
            "begins": np.concatenate([[0], np.cumsum(np.bincount(units, minlength=d_mlp))]),
            "places": places[order],
            "values": values[order],
        }
        raw = arrays_to_bytes(arrays)
        write_whole(self.folder / ABOUT, json.dumps(self.about, indent=1, sort_keys=True).encode())
        write_whole(self._file(layer), hashlib.sha256(raw).digest() + raw)

    def _file(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:03d}"


def store_activations(
    target: TargetModel, sample: Tokens, stored: StoredActivations, *, progress: Progress | None = None
) -> tuple[int, ...]:
    """Reads the sample, in the batches in which `ask` reads it, and keeps the layers that are not there yet; the layers
    that take too much room to be kept. progress(done, total) counts windows."""
    spec = target.spec
    missing = sorted(set(range(spec.n_layers)) - set(stored.layers(spec.n_layers)))
    if not missing:
        return ()
    entries = {layer: _Entries([]) for layer in missing}
    sites, n_pos = [Site("neurons", layer) for layer in missing], sample.ids.shape[1]
    done = 0
    for rows in batches(sample):
        ids = to_ids(sample, rows)
        read = target.run(ids, read=sites, stop=missing[-1] + 1).read
        done += len(rows)
        real = sample.ids[rows, : ids.shape[1]] >= 0
        for site in sites:
            values = np.where(real[:, :, None], read[site].float().numpy(), np.float32(0))
            if not np.isfinite(values).all():
                raise ToolFailed(f"layer {site.layer} has activations that are not finite on this text")
            window, pos, unit = np.nonzero(values)
            places = (rows[window] * n_pos + pos).astype(np.int32)
            share = done / len(sample)
            entries[site.layer].add(unit.astype(np.int32), places, values[window, pos, unit], share=share)
        if progress is not None:
            progress(done, len(sample))
    for layer, found in entries.items():
        if found.parts is not None:
            stored.save(layer, spec.d_mlp, sample, found.parts)
    return tuple(layer for layer, found in entries.items() if found.parts is None)
