"""Whether a folder keeps to what Neuronpedia takes: its published limits, layout and types, one sentence for each fault."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from neuronaut.agent.exporting.forms import MOST_LINES, ROWS, UPLOADS

BATCH = re.compile(r"batch-(?:0|[1-9]\d*)\.jsonl\.gz")
MOST_BYTES = 200_000_000  # of the lines of one file: one insert takes about so much
NEEDED = (
    "model.jsonl",
    "sourceset.jsonl",
    "source.jsonl",
)  # without these an import stops; release.jsonl may be missing
BATCHED = ("features", "explanations", "activations")
MOST_TOLD = 1_000


def faults(folder: Path) -> list[str]:
    """What is wrong with an export, at most the first 1,000 faults; [] where nothing is. A folder without an export is wrong."""
    found: list[str] = []
    sources = sorted(path for path in folder.glob("v1/*/*") if path.is_dir() and path.name != "config")
    uploads = sorted(path for path in (folder / "upload").rglob("*") if path.is_file())
    if not sources and not uploads:
        return [f"{folder}: holds neither v1/MODEL/SOURCE nor upload/"]
    for fault in _all(folder, sources, uploads):
        found.append(fault)
        if len(found) == MOST_TOLD:
            break
    return found


def _all(folder: Path, sources: list[Path], uploads: list[Path]) -> Iterator[str]:
    for source in sources:
        yield from _source(folder, source)
    for file in uploads:
        kind = file.relative_to(folder / "upload").parts[0]
        name = file.relative_to(folder)
        if kind not in UPLOADS or file.suffix != ".json":
            yield f"{name}: is no upload of {' or '.join(UPLOADS)}"
            continue
        try:
            body = _parsed(file.read_text("utf-8"))
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        yield from _against(UPLOADS[kind], body, str(name))


def _source(folder: Path, source: Path) -> Iterator[str]:
    for name in NEEDED:
        if not (source / name).is_file():
            yield f"{source.relative_to(folder)}: has no {name}"
    features: set[str] = set()
    ids: set[tuple[str, str]] = set()
    for path in sorted(source.iterdir(), key=_in_order):
        place = path.relative_to(folder)
        if path.is_file() and path.name in ROWS and path.suffix == ".jsonl":
            yield from _lines(path, place, source, features, ids, kind=path.name)
        elif (
            path.is_dir()
            and (kind := path.name.split("-")[0]) in BATCHED
            and (path.name == kind or kind == "explanations")
        ):
            for file in sorted(path.iterdir()):
                if not BATCH.fullmatch(file.name):
                    yield f"{place}/{file.name}: is no batch-N.jsonl.gz"
                    continue
                yield from _lines(file, file.relative_to(folder), source, features, ids, kind=kind)
        else:
            yield f"{place}: is no part of a source"


def _in_order(path: Path) -> tuple[bool, str]:
    """Features first: the others name them."""
    return path.name != "features", path.name


def _lines(
    file: Path, place: Path, source: Path, features: set[str], ids: set[tuple[str, str]], *, kind: str
) -> Iterator[str]:
    n, n_bytes, keys = 0, 0, None
    for n, line in _numbered(file):
        where = f"{place}:{n}"
        if isinstance(line, ValueError):
            yield f"{where}: {line}"
            continue
        n_bytes += len(line)
        try:
            row = _parsed(line.decode())
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        yield from _against(ROWS[kind], row, where)
        if isinstance(row, dict):
            keys = keys or row.keys()
            if row.keys() != keys:
                yield f"{where}: has other columns than the first line, from which an import takes them"
            yield from _named(row, where, source, features, ids, kind)
    if n == 0:
        yield f"{place}: is empty"
    if kind in ("features", "explanations") and n > MOST_LINES:
        yield f"{place}: has {n} lines, and a batch has at most {MOST_LINES}"
    if n_bytes > MOST_BYTES:
        yield f"{place}: holds {n_bytes:,} bytes, more than one insert takes"


def _numbered(file: Path) -> Iterator[tuple[int, Any]]:
    """The lines with their numbers from 1; a ValueError in the place of what cannot be read."""
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        yield number + 1, ValueError(f"is no whole gzip file ({error})")


def _parsed(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"holds {name}, which is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg})") from None


def _named(
    row: dict[str, Any], where: str, source: Path, features: set[str], ids: set[tuple[str, str]], kind: str
) -> Iterator[str]:
    """Whether the row belongs to the folder that it lies in, names a feature that is there, and has an id of its own."""
    belongs = {"model.jsonl": {"id": source.parent.name}, "release.jsonl": {}, "sourceset.jsonl": {"modelId": source.parent.name},
               "source.jsonl": {"id": source.name, "modelId": source.parent.name}}  # fmt: skip
    wanted = belongs.get(kind, {"modelId": source.parent.name, "layer": source.name})
    for name, value in wanted.items():
        if row.get(name) != value:
            yield f"{where}: {name} is {row.get(name)!r} in the folder of {value!r}"
    if kind not in BATCHED:
        return
    index = str(row.get("index"))
    if kind == "features":
        if index in features:
            yield f"{where}: the index {index} occurs twice in the source"
        features.add(index)
        return
    if index not in features:
        yield f"{where}: is about the index {index}, of which features/ has no line"
    key = (kind, str(row.get("id")))
    if key in ids:
        yield f"{where}: the id {row.get('id')!r} occurs twice"
    ids.add(key)


def _against(form: type[BaseModel], value: Any, where: str) -> Iterator[str]:
    try:
        form.model_validate(value)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            place = ".".join(map(str, one["loc"]))
            yield f"{where}: {place + ': ' if place else ''}{one['msg'].removeprefix('Value error, ')}"
