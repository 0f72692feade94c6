"""What the weight files of a folder hold, and whether they are whole, by their headers alone."""

import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.folder import ModelFolder

LAYERS = ("num_hidden_layers", "n_layer")  # how config.json calls their number
MOST_HEADER = 100_000_000  # bytes; the limit of the format itself
# Tables that older versions of transformers stored beside the weights, and compute now.
BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".inv_freq")
ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32,
    "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
_NUMBERED = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file. dtype: as safetensors names it, such as F32, BF16 or U32."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether it is loaded in the number format that is asked for; packed weights stay as they are."""
        return self.dtype.startswith(("F", "BF"))

    @property
    def layer(self) -> int | None:
        """The first number in its name, None outside the layers."""
        found = _NUMBERED.search(self.name)
        return None if found is None else int(found[1])


def check_weights(folder: ModelFolder) -> None:
    """Refuses a file that is missing, is no safetensors, has a header of absurd size, or is not as long as its header says."""
    stored_in(folder)


def stored_in(folder: ModelFolder) -> list[Stored]:
    """The tensors of all files. Refuses a file that is missing, is no safetensors, has a header of absurd size, or is not as long
    as that says."""
    if missing := folder.missing_weights:
        raise UserError(
            f"the folder {str(folder.path)!r} lacks {missing[0]!r}, one of its weight files ({len(missing)} are missing): "
            "download or convert the model again"
        )
    found = list({one.name: one for file in folder.weights for one in tensors_of(file)}.values())
    n_layers = next((folder.config[name] for name in LAYERS if isinstance(folder.config.get(name), int)), None)
    beyond = [] if n_layers is None else [one.name for one in found if one.layer is not None and one.layer >= n_layers]
    if beyond:
        raise UserError(
            f"config.json in {str(folder.path)!r} speaks of {n_layers} layers, and the weights hold {beyond[0][:80]!r} ({len(beyond)} "
            "tensors beyond them): the two do not belong together"
        )
    return found


def tensors_of(file: Path) -> Sequence[Stored]:
    """The tensors of one file; refuses as `stored_in` does."""
    found = _read(file)
    if isinstance(found, str):
        raise UserError(
            f"{file.name} in {str(file.parent)!r} cannot be read: {found}; download or convert the model again"
        )
    return found


def _read(file: Path) -> list[Stored] | str:
    """What a file holds, or what is wrong with it."""
    if not file.is_file():
        return "it is no regular file"
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(8)
        if len(first) < 8:
            return f"it has {size} bytes, too few for a header"
        (length,) = struct.unpack("<Q", first)
        if length > MOST_HEADER:
            return (
                f"its header would be {length:,} bytes long, where {MOST_HEADER:,} are the most that the format allows"
            )
        if 8 + length > size:
            return f"its header would be {length:,} bytes long, and the file has {size:,}"
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        rows = {name: row for name, row in header.items() if name != "__metadata__"}
        ends = [int(row["data_offsets"][1]) for row in rows.values()]
        spans = sorted((int(row["data_offsets"][0]), int(row["data_offsets"][1])) for row in rows.values())
        found = [
            Stored(name, str(row["dtype"]), tuple(map(int, row["shape"])), end - int(row["data_offsets"][0]))
            for (name, row), end in zip(rows.items(), ends, strict=True)
        ]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "its header is not that of a safetensors file"
    for one in found:
        bits = ITEM_BITS.get(one.dtype)
        if bits is None:
            return f"{one.name[:80]!r} is of {one.dtype[:20]!r}, which is no number format of safetensors"
        if min(one.shape, default=1) < 0 or one.size * bits != 8 * one.n_bytes:
            return f"{one.name[:80]!r} has shape {list(one.shape)} of {one.dtype[:20]}, which {one.n_bytes:,} bytes are not"
    if any(
        begin != end for begin, end in zip((begin for begin, _ in spans), (0, *(end for _, end in spans)), strict=False)
    ):
        return "its tensors overlap, or leave gaps"
    needed = 8 + length + max(ends, default=0)
    return found if needed == size else f"its header speaks of {needed:,} bytes, and the file has {size:,}"
