"""What the weight files of a folder hold, and whether they are whole, by their headers alone."""

import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.folder import ModelFolder

LAYERS = ("num_hidden_layers", "n_layer")  # how config.json calls their number
PIECE = 1 << 20  # bytes that are compared at once
MOST_HEADER = 100_000_000  # bytes; the limit of the format itself
# Tables that older versions of transformers stored beside the weights, and compute now.
BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".inv_freq")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32,
    "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
_NUMBERED = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file. dtype: as safetensors names it, such as F32, BF16 or U32. file, begin: where its bytes lie; None where
    the file is not on this machine."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    file: Path | None = None
    begin: int = 0

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


def stored_in(folder: ModelFolder) -> list[Stored]:
    """The tensors of all files. Refuses a file that is missing, is no safetensors, has a header of absurd size, or is not as long
    as that says."""
    if missing := folder.missing_weights:
        raise UserError(
            f"the folder {str(folder.path)!r} lacks {missing[0]!r}, one of its weight files ({len(missing)} are missing): "
            "download or convert the model again"
        )
    found = list({one.name: one for file in folder.weights for one in tensors_of(file)}.values())
    _check_layers(folder, found)
    return found


def _check_layers(folder: ModelFolder, found: Sequence[Stored]) -> None:
    """Refuses another number of layers than config.json says."""
    n_layers = next((folder.config[name] for name in LAYERS if isinstance(folder.config.get(name), int)), None)
    numbers = {one.layer for one in found if one.layer is not None}
    if n_layers is None or not numbers:
        return
    if beyond := [one.name for one in found if one.layer is not None and one.layer >= n_layers]:
        raise UserError(
            f"config.json in {str(folder.path)!r} speaks of {n_layers} layers, and the weights hold {beyond[0][:80]!r} ({len(beyond)} "
            "tensors beyond them): the two do not belong together"
        )
    if max(numbers) + 1 < n_layers:
        raise UserError(
            f"config.json in {str(folder.path)!r} speaks of {n_layers:,} layers, and the weights hold {max(numbers) + 1:,}: the others "
            "would be random, so download or convert the model again"
        )


def same_bytes(one: Stored, other: Stored) -> bool:
    """Whether two tensors hold the same numbers in the same format, so that one is a copy. False where they cannot be read."""
    if (one.dtype, one.shape) != (other.dtype, other.shape) or one.file is None or other.file is None:
        return False
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.begin)
        second.seek(other.begin)
        pieces = [min(PIECE, one.n_bytes - done) for done in range(0, one.n_bytes, PIECE)]
        return all(first.read(n) == second.read(n) for n in pieces)


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
        found = [_stored(name, row, file, 8 + length) for name, row in rows.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "its header is not that of a safetensors file"
    for one in found:
        bits = ITEM_BITS.get(one.dtype)
        if bits is None:
            return f"{one.name[:80]!r} is of {one.dtype[:20]!r}, which is no number format of safetensors"
        if min(one.shape, default=1) < 0 or one.size * bits != 8 * one.n_bytes:
            return f"{one.name[:80]!r} has shape {list(one.shape)} of {one.dtype[:20]}, which {one.n_bytes:,} bytes are not"
    needed = 8 + length
    for begin, n_bytes in sorted((one.begin, one.n_bytes) for one in found):
        if begin != needed:
            return "its tensors overlap, or leave gaps"
        needed += n_bytes
    return found if needed == size else f"its header speaks of {needed:,} bytes, and the file has {size:,}"


def _stored(name: str, row: dict[str, Any], file: Path, first: int) -> Stored:
    """One row of a header. first: where the tensors begin. Raises a TypeError for numbers that are not whole."""
    begin, end = row["data_offsets"]
    shape = row["shape"]
    if any(type(number) is not int for number in (begin, end, *shape)):  # true and 3.0 are none
        raise TypeError(name)
    return Stored(name, str(row["dtype"]), tuple(shape), end - begin, file, first + begin)
