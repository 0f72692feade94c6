"""The folder of indexes: shards brought together from several machines, and what nothing can use any more."""

import json
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from neuronaut.tools.corpora.kept import is_kept, outdated
from neuronaut.tools.corpora.sources import column_of
from neuronaut.tools.errors import UserError
from neuronaut.tools.shards import ABOUT, INDEX_VERSION, ORIGIN, ShardStore, about_in, key_of, stores_in
from neuronaut.tools.stored import STORED_VERSION
from neuronaut.tools.targets.base import Fingerprint

INDEX_FOLDER = re.compile(r"[0-9a-f]{32}")
ACTIVATIONS_FOLDER = re.compile(r"activations-[0-9a-f]{32}")
STREAMED_FOLDER = re.compile(r"streamed-[0-9a-f]{32}")
PART_FOLDER = re.compile(r"(neurons|heads)-\d{3,}|features-[0-9a-f]{1,64}")
OUR_FILE = re.compile(
    rf"shard-\d{{5,}}\.(safetensors|json)|layer-\d{{3,}}|residual-\d{{3,}}|lock|texts|table|digests|sketches|band-\d\d|corpus\.json|manifest\.json|{re.escape(ABOUT)}|{re.escape(ORIGIN)}|\..*\.part"
)
BEING_WRITTEN = 3600.0  # seconds: a younger file may be in the making


@dataclass(frozen=True)
class Merged:
    """What merging brought: shards copied, those that were there, those that were damaged where they came from."""

    folder: str
    copied: int
    already_there: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class Garbage:
    """Files of ours that nothing can use, and why."""

    path: Path
    reason: str
    n_bytes: int


def merge_folders(folders: Collection[Path], cache: Path) -> list[Merged]:
    """Copies the whole shards of indexes built elsewhere into the folder of indexes; what is there and whole stays.

    folders: each that of an index or of several. Refuses a folder that holds no index of this version.
    """
    found: list[Merged] = []
    for folder in folders:
        stores = list(stores_in(folder))
        if not stores:
            raise UserError(
                f"{str(folder)!r} holds no index of this version: give the folder that `neuronaut index build` printed, or "
                "one of the indexes in it"
            )
        found += [_merge(store, ShardStore(cache / key_of(store.about), store.about)) for store in stores]
    return found


def _merge(source: ShardStore, into: ShardStore) -> Merged:
    copied, known, damaged = 0, 0, []
    for part in source.parts():
        for number in source.numbers(part):
            if into.state(part, number) == "done":
                known += 1
            elif (raw := source.raw(part, number)) is not None:
                into.put(part, number, raw)
                copied += 1
            else:
                damaged.append(f"{part} {number}")
    return Merged(str(into.folder), copied, known, tuple(damaged))


def find_garbage(cache: Path, fingerprints: Collection[Fingerprint]) -> Iterator[Garbage]:
    """What nothing can use: of another version of the index, of a model that has changed, of a model or corpus whose file is
    gone, damaged, or left over by a process that was killed. Whatever is not ours is not looked into.

    fingerprints: of models that are there; an index of the same name and another fingerprint is of one that has changed.
    """
    for folder in sorted(cache.iterdir()) if cache.is_dir() else []:
        if not folder.is_dir() or folder.is_symlink():
            continue
        if INDEX_FOLDER.fullmatch(folder.name):
            reason = _outdated(folder, fingerprints)
        elif ACTIVATIONS_FOLDER.fullmatch(folder.name):
            reason = _outdated_activations(folder, fingerprints)
        elif STREAMED_FOLDER.fullmatch(folder.name):
            reason = _left_over(folder)
        elif is_kept(folder):
            reason = outdated(folder)
        else:
            continue
        if reason is not None:
            yield Garbage(folder, reason, sum(file.stat().st_size for file in _ours(folder)))
        else:
            yield from _broken(folder)


def remove(garbage: Garbage) -> bool:
    """Removes files of ours, and folders that are empty then; whether nothing remains. Files that are not ours stay."""
    files = list(_ours(garbage.path)) if garbage.path.is_dir() else [garbage.path]
    for file in files:
        file.unlink(missing_ok=True)
    for folder in sorted({file.parent for file in files} | {garbage.path}, key=lambda one: -len(one.parts)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return not garbage.path.exists()


def _ours(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if PART_FOLDER.fullmatch(path.name):
                yield from _ours(path)
        elif OUR_FILE.fullmatch(path.name):
            yield path


def _outdated(folder: Path, fingerprints: Collection[Fingerprint]) -> str | None:
    if not any(_ours(folder)):
        return None
    about = about_in(folder)
    if about is None:
        return "damaged: it does not say what it is of" if (folder / ABOUT).exists() else "of an older version"
    if about.get("format") != "neuronaut index":
        return None
    if about.get("version") != INDEX_VERSION:
        return f"of version {about.get('version')} of the index, and this is {INDEX_VERSION}"
    if key_of(about) != folder.name:
        return "damaged: what it says that it is of is not what its name says"
    return _changed(about["target"], fingerprints) or _gone(folder)


def _outdated_activations(folder: Path, fingerprints: Collection[Fingerprint]) -> str | None:
    about = about_in(folder)
    if about is None or about.get("version") != STORED_VERSION:
        return "of an older version" if any(_ours(folder)) else None
    return _changed(about["target"], fingerprints)


def _left_over(folder: Path) -> str | None:
    newest = max((file.stat().st_mtime for file in _ours(folder)), default=0.0)
    return (
        "left over by an index with streamed layers that was stopped" if time.time() - newest > BEING_WRITTEN else None
    )


def _changed(target: dict[str, str], fingerprints: Collection[Fingerprint]) -> str | None:
    same = [asdict(one) for one in fingerprints if (one.name, one.backend) == (target["name"], target["backend"])]
    if not same or target in same:
        return None
    what = next((key for key in ("weights_sha256", "tokenizer_sha256") if all(target[key] != o[key] for o in same)), "")
    return (
        f"{target['name']} has changed since" if what else f"{target['name']} is run by other versions of libraries now"
    )


def _gone(folder: Path) -> str | None:
    origin = about_in_file(folder / ORIGIN)
    for what in ("model", "corpus"):
        named = origin.get(what)
        path = Path(column_of(named)[0]) if isinstance(named, str) else Path()
        if path.is_absolute() and not path.exists():
            return f"its {what} {named} is gone"
    return None


def about_in_file(path: Path) -> dict[str, object]:
    """What a small JSON file of ours holds; nothing where it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _broken(folder: Path) -> Iterator[Garbage]:
    """Damaged shards and what a killed process left over."""
    for path in _ours(folder):
        size, old = path.stat().st_size, time.time() - path.stat().st_mtime > BEING_WRITTEN
        if path.name.endswith(".part") or (path.suffix == ".safetensors" and not path.with_suffix(".json").exists()):
            if old:
                yield Garbage(path, "left over by a process that was killed", size)
        elif path.suffix == ".json" and path.name.startswith("shard-"):
            store = ShardStore(folder, {})
            if store.state(path.parent.name, int(path.stem[6:])) == "damaged":
                shard = path.with_suffix(".safetensors")
                yield Garbage(path, "damaged", size)
                if shard.exists():
                    yield Garbage(shard, "damaged", shard.stat().st_size)
