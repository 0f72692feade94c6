"""Flat rows as Parquet, JSONL or CSV: some rows at a time, the file whole or not there."""

import contextlib
import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from neuronaut.memory.secrets import find_secrets
from neuronaut.tools.errors import UserError

Row = Mapping[str, Any]
Format = Literal["parquet", "jsonl", "csv"]
TOGETHER = 1_000  # rows of one write
ROW_GROUP = 50_000  # rows of a Parquet row group: what a reader holds at a time
TYPES = {"text": pa.string(), "int": pa.int64(), "float": pa.float64()}
_SUFFIXES: tuple[tuple[str, Format], ...] = (
    (".parquet", "parquet"), (".jsonl", "jsonl"), (".jsonl.gz", "jsonl"), (".csv", "csv"),
)  # fmt: skip
# What a spreadsheet may take for a formula, also behind spaces and in full width (OWASP, CSV injection), and the guard itself.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠'\t\r\n]")
GUARD = "'"
NAMES = ("address", "hypothesis", "run")  # columns that say which row it is


def format_of(path: Path) -> Format:
    """The format that the file's name asks for. Refuses any other name."""
    for suffix, found in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return found
    raise UserError(f"--out {str(path)!r} names no format: end it in .parquet, .jsonl, .jsonl.gz or .csv")


def write_table(path: Path, columns: Mapping[str, str], rows: Iterable[Row]) -> int:
    """Writes the rows to a file in the format of its name; how many. columns: name to text, int or float.

    The file appears when it is whole, in place of an earlier one. Half surrogates, which no file can hold, become U+FFFD.
    Refuses a row in which a key or password stands: it would leave this machine with the file.
    """
    schema = pa.schema([(name, TYPES[kind]) for name, kind in columns.items()])
    write = {"parquet": _parquet, "jsonl": _jsonl, "csv": _csv}[format_of(path)]
    counted = _Counted(dict(_clean(row, columns)) for row in rows)
    with whole_file(path) as place:
        write(place, path, schema, counted)
    return counted.n


class _Counted:
    """Rows that are counted as they pass."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self.n, self._rows = 0, iter(rows)

    def some(self) -> Iterator[list[dict[str, Any]]]:
        while chunk := list(islice(self._rows, TOGETHER)):
            _refuse_keys(chunk, self.n)
            self.n += len(chunk)
            yield chunk


def _refuse_keys(rows: list[dict[str, Any]], before: int) -> None:
    """Refuses rows that hold a key. All their different texts are looked through at once, and row by row only where one does."""
    texts = {value for row in rows for value in row.values() if isinstance(value, str)}
    if not find_secrets("\n".join(texts)):
        return
    for at, row in enumerate(rows, start=before + 1):
        for name, value in row.items():
            if isinstance(value, str) and (found := find_secrets(value)):
                named = ", ".join(f"{key} {row[key]}" for key in NAMES if row.get(key) and key != name)
                raise UserError(
                    f"nothing was written: row {at}{f' ({named})' if named else ''} would hold {found[0].what} in {name}, "
                    "and a notebook keeps what it was given: change that key where it is valid, and export other runs"
                )


def storable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean(row: Row, columns: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name in columns:
        value = row[name]
        yield name, storable(value) if isinstance(value, str) else value


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside the file to write to; it takes the file's place at the end, or is gone after an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written ({error.strerror}): give another --out") from None
    place = Path(name)
    try:
        yield place
        place.chmod(0o666 & ~_umask())
        os.replace(place, path)
    except OSError as error:
        raise UserError(f"{str(path)!r} could not be written ({error.strerror}): nothing was kept there") from None
    finally:
        place.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _parquet(place: Path, _: Path, schema: pa.Schema, rows: _Counted) -> None:
    held: list[pa.RecordBatch] = []
    with pa.parquet.ParquetWriter(place, schema, compression="zstd") as writer:
        for some in rows.some():
            held.append(pa.RecordBatch.from_pylist(some, schema))
            if sum(map(len, held)) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(held, schema))
                held = []
        writer.write_table(pa.Table.from_batches(held, schema))


def _jsonl(place: Path, path: Path, schema: pa.Schema, rows: _Counted) -> None:
    opened: Callable[..., IO[Any]] = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(place, "wt", encoding="utf-8", newline="\n") as file:
        for some in rows.some():
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in some)


def _csv(place: Path, _: Path, schema: pa.Schema, rows: _Counted) -> None:
    texts = [field.name for field in schema if field.type == pa.string()]
    with pa.csv.CSVWriter(place, schema) as writer:
        for some in rows.some():
            for row in some:
                row.update({name: guarded(row[name]) for name in texts if row[name] is not None})
            writer.write_batch(pa.RecordBatch.from_pylist(some, schema))


def guarded(text: str) -> str:
    """The text as a CSV cell that no spreadsheet takes for a formula; `unguarded` gives it back, but for NUL, which becomes
    U+FFFD since readers end a cell there."""
    text = text.replace("\x00", "\ufffd")
    return GUARD + text if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text of a CSV cell that may be guarded; a leading apostrophe of other people's text stays."""
    return cell[1:] if cell.startswith(GUARD) and _FORMULA.match(cell[1:]) else cell
