"""Where computed things lie between runs, and how a file is put there whole or not at all."""

import os
import tempfile
from pathlib import Path

import platformdirs

from neuronaut.tools.errors import UserError


def cache_folder() -> Path:
    """Where indexes lie: $NEURONAUT_CACHE/index, or the user's cache folder."""
    named = os.environ.get("NEURONAUT_CACHE")
    return (Path(named) if named else platformdirs.user_cache_path("neuronaut")) / "index"


def write_whole(path: Path, content: bytes) -> None:
    """Puts a whole file in place, its folders made, or nothing. Refuses where it cannot be stored."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            part = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if part is not None:
            part.unlink(missing_ok=True)
        inside = cache_folder().parent in path.parents
        free = "set $NEURONAUT_CACHE to a free folder" if inside else "name another folder, or free some space"
        what = "the index" if inside else repr(path.name)
        raise UserError(f"{what} cannot be stored in {str(path.parent)!r} ({error}): {free}") from error
