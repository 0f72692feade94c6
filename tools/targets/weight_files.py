"""Whether the weight files of a folder are whole, by their headers alone."""

import json
import struct
from pathlib import Path

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.folder import ModelFolder

MOST_HEADER = 100_000_000  # bytes; the limit of the format itself


def check_weights(folder: ModelFolder) -> None:
    """Refuses a file that is no safetensors, has a header of absurd size, or is longer or shorter than its header says."""
    for file in folder.weights:
        if fault := _fault(file):
            raise UserError(
                f"{file.name} in {str(folder.path)!r} cannot be read: {fault}; download or convert the model again"
            )


def _fault(file: Path) -> str | None:
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
        ends = [int(one["data_offsets"][1]) for name, one in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "its header is not that of a safetensors file"
    needed = 8 + length + max(ends, default=0)
    return None if needed == size else f"its header speaks of {needed:,} bytes, and the file has {size:,}"
