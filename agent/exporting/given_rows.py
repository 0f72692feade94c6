"""Explanations that others made, read from a file: which unit, in which words, with a predicate or without."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.memory.tables import storable, unguarded
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import predicate_from_json, simplify
from neuronaut.tools.units import Unit

MOST_ROWS = 1_000_000
LONGEST = 2_000  # characters of an explanation
UNITS = ("unit", "address", "neuron", "feature")
TEXTS = ("explanation", "description", "label", "claim", "text")
_SOURCE = re.compile(r"L?(\d+)(?:-(.+))?")
COLUMNS = "a column unit (or layer and index), and a column explanation or predicate"


@dataclass(frozen=True)
class GivenRow:
    """One row. line: its number in the file, the header not counted. fault: why nothing can be recorded of it, else "".
    refused: why its predicate is none."""

    line: int
    unit: Unit | None
    text: str
    predicate: Predicate | None = None
    fault: str = ""
    refused: str = ""


def read_rows(file: Path, dictionary: str | None = None) -> Iterator[GivenRow]:
    """The rows of a .csv, .jsonl or .jsonl.gz file; a row that cannot be read has a fault and stops no other.

    dictionary: of features that are named as Neuronpedia does, by a source id (`6-res-jb`) and an index. Refuses a file that
    cannot be read or has other columns.
    """
    for number, found in enumerate(_objects(file), 1):
        if number > MOST_ROWS:
            raise UserError(f"{str(file)!r} has more than {MOST_ROWS:,} rows: cut it into several files")
        yield GivenRow(number, None, "", fault=found) if isinstance(found, str) else _row(number, found, dictionary)


def _objects(file: Path) -> Iterator[Mapping[str, Any] | str]:
    """The rows by column, or a fault in the place of one that is none."""
    name = file.name.lower()
    if not name.endswith((".csv", ".jsonl", ".jsonl.gz")):
        raise UserError(f"{str(file)!r} is no table that can be imported: give .csv, .jsonl or .jsonl.gz")
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8-sig", newline="")
            if name.endswith(".gz")
            else file.open(encoding="utf-8-sig", newline="")
        ) as opened:
            yield from (
                _csv(file, opened) if name.endswith(".csv") else map(_jsonl, (one for one in opened if one.strip()))
            )
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{str(file)!r} is no whole gzip file: make it anew") from None
    except UnicodeDecodeError:
        raise UserError(f"{str(file)!r} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{str(file)!r} cannot be read ({error.strerror}): check the name") from None


def _csv(file: Path, opened: Any) -> Iterator[Mapping[str, Any] | str]:
    rows = csv.reader(opened, strict=True)
    try:
        header = [unguarded(cell).strip() for cell in next(rows, [])]
        known = set(header)
        if not (known & {*UNITS} or {"layer", "index"} <= known) or not known & {*TEXTS, "predicate"}:
            raise UserError(f"{str(file)!r} has the columns {', '.join(header)[:200] or 'none'}: it needs {COLUMNS}")
        for cells in rows:
            if len(cells) != len(header):
                yield f"has {len(cells)} cells under {len(header)} columns"
            else:
                yield {name: unguarded(cell) for name, cell in zip(header, cells, strict=True) if cell != ""}
    except csv.Error as error:
        raise UserError(f"{str(file)!r} is no CSV (line {rows.line_num}: {error})") from None


def _jsonl(line: str) -> Mapping[str, Any] | str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return "is no JSON"
    return found if isinstance(found, dict) else "is no JSON object"


def _row(number: int, found: Mapping[str, Any], dictionary: str | None) -> GivenRow:
    said = next((found[name] for name in TEXTS if found.get(name) is not None), "")
    text = storable(said).replace("\x00", "\ufffd").strip() if isinstance(said, str) else ""
    try:
        if not isinstance(said, str):
            raise UserError(f"the explanation is no text but {type(said).__name__}")
        if len(text) > LONGEST:
            raise UserError(f"the explanation has {len(text):,} characters, more than {LONGEST:,}")
        unit = unit_of(found, dictionary)
    except (UserError, ValueError) as error:
        return GivenRow(number, None, text[:LONGEST], fault=str(error))
    try:
        predicate = _predicate(found.get("predicate"))
    except (ToolRefused, ValueError, RecursionError) as error:
        return GivenRow(number, unit, text or storable(str(found["predicate"]))[:LONGEST], refused=str(error))
    if predicate is None and not text:
        return GivenRow(number, unit, "", fault="it says nothing: there is neither an explanation nor a predicate")
    return GivenRow(number, unit, text, predicate)


def unit_of(found: Mapping[str, Any], dictionary: str | None = None) -> Unit:
    """The unit of a row: by its address, else by layer (or source id) and index. Refuses anything else."""
    for name in UNITS:
        if isinstance(found.get(name), str):
            unit = Unit.parse(found[name])
            break
    else:
        unit = _by_index(found, dictionary)
    if unit.kind not in ("neuron", "feature"):
        raise UserError(f"{unit.address} is a {unit.kind}: explanations of neurons and features can be tested")
    return unit


def _by_index(found: Mapping[str, Any], dictionary: str | None) -> Unit:
    layer, index = str(found.get("layer", "")).strip(), str(found.get("index", "")).strip()
    match = _SOURCE.fullmatch(layer)
    if match is None or not index.isdecimal() or len(index) > 9:
        raise UserError(f"layer {layer[:80]!r} and index {index[:80]!r} name no unit")
    if match[2] is None:
        return Unit("neuron", int(match[1]), int(index))
    if dictionary is None:
        raise UserError(f"{layer[:80]!r} is a source of features: say with --features which dictionary it is")
    return Unit.of_feature(dictionary, int(index))


def _predicate(given: object) -> Predicate | None:
    """A predicate as JSON, as an object or in the text form; None where none is given."""
    if given is None or given == "":
        return None
    if isinstance(given, dict):
        given = json.dumps(given)
    if not isinstance(given, str):
        raise ToolRefused(f"the predicate is {type(given).__name__}, neither JSON nor text")
    given = storable(given)
    return simplify(predicate_from_json(given) if given.lstrip().startswith("{") else parse_text(given))
