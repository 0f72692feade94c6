"""Corpora that were laid on disk, found again by the files that they were read from."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from neuronaut.tools.corpora.documents import SPLIT_RULE
from neuronaut.tools.corpora.gather import LONGEST_TEXT, Laid
from neuronaut.tools.corpora.shelf import SHELF_VERSION, Shelf
from neuronaut.tools.corpora.sources import Source
from neuronaut.tools.errors import UserError

_PREFIX = "corpus-"
_UNFINISHED = ".corpus-"
BEING_WRITTEN = 3600.0  # seconds: a younger folder may be in the making


def folder_of(cache: Path, sources: Sequence[Source]) -> Path | None:
    """Where the corpus of these files lies: by their paths, sizes, versions and columns; None where a version is unknown."""
    if any(source.version is None for source in sources):
        return None
    rows = [source.origin for source in sources]
    about = {"version": SHELF_VERSION, "rule": SPLIT_RULE.decode(), "longest": LONGEST_TEXT, "sources": rows}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return cache / f"{_PREFIX}{key[:32]}"


@contextmanager
def workplace(cache: Path) -> Iterator[Path]:
    """A new folder in the cache, removed with what is left in it. Refuses where it cannot be made or filled."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, suffix=".part", dir=cache))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"the corpus cannot be laid down in {str(cache)!r} ({error}): set $NEURONAUT_CACHE to a free folder"
        ) from error


@contextmanager
def laid_in(cache: Path) -> Iterator[Laid]:
    """Files in a new workplace of the cache, which may fill half of what is free there."""
    with workplace(cache) as folder, closing(Laid(folder, shutil.disk_usage(folder).free // 2)) as laid:
        yield laid


def put_away(work: Path, final: Path) -> Shelf:
    """The finished folder moved to `final`, or what another process that was faster left there."""
    if Shelf.at(final) is None:
        shutil.rmtree(final, ignore_errors=True)
        with suppress(OSError):
            os.rename(work, final)
    shelf = Shelf.at(final)
    if shelf is None:
        raise UserError(f"the corpus cannot be laid down in {str(final)!r}: set $NEURONAUT_CACHE to a free folder")
    return shelf


def is_kept(folder: Path) -> bool:
    """Whether a folder of the cache is that of a corpus, finished or not."""
    return folder.name.startswith((_PREFIX, _UNFINISHED))


def outdated(folder: Path) -> str | None:
    """Why the folder of a corpus is of no use any more; None where it is."""
    if folder.name.startswith(_UNFINISHED):
        old = time.time() - max(file.stat().st_mtime for file in (folder, *folder.iterdir())) > BEING_WRITTEN
        return "left over by a process that was killed" if old else None
    if Shelf.at(folder) is None:
        return "damaged"
    for path, size, version, _ in json.loads((folder / "corpus.json").read_bytes())["origin"]:
        file = Path(path)
        if file.is_absolute() and not file.exists():
            return f"its text {path} is gone"
        if file.is_absolute() and (file.stat().st_size, str(file.stat().st_mtime_ns)) != (size, version):
            return f"its text {path} has changed since"
    return None
