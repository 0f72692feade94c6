"""What a tool found, as text a person can read: tables, contexts with their activations, arguments with their bounds."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuronaut.agent.lines import interval
from neuronaut.agent.view import visible
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Tool, ToolResult

WIDEST = 60  # characters of a cell of a table
MARKED = 0.5  # of the largest activation of a context: from there on it is written beside its token


def result_lines(result: ToolResult) -> Iterator[str]:
    """The measurements, then the payload, then which arrays and figures there are."""
    for measurement in result.measurements:
        yield measurement_line(measurement)
    lines = _lines(result.payload)
    yield from lines if result.measurements else _without_gap(lines)
    for name, array in result.arrays.items():
        yield f"array {name} {tuple(array.shape)}: --arrays FILE.npz keeps it"
    for figure in result.figures:
        yield f"figure {visible(figure.name)}: --figures FOLDER keeps it"


def measurement_line(m: Measurement) -> str:
    """One measurement: value, interval, unit of measure, n, null and where it stands among the nulls."""
    null = f" · null {m.null_value:.3g}" if m.null_value is not None else ""
    percentile = f" (above {m.null_percentile:.0f} % of nulls)" if m.null_percentile is not None else ""
    return f"{m.metric} {m.value:.4g}{interval(m.ci, '.3g')} {m.unit} ({m.n} {m.n_of}){null}{percentile}"


def help_lines(tool: Tool) -> Iterator[str]:
    """What the tool answers, its arguments with types, bounds and defaults, and a call that works."""
    schema = tool.args.model_json_schema()
    properties, needed = schema.get("properties", {}), schema.get("required", [])
    yield from (line.strip() for line in tool.doc.splitlines())
    yield ""
    if properties:
        yield " ".join((tool.args.__doc__ or "").split())
        yield ""
    rows = [
        {
            "argument": name,
            "": "needed" if name in needed else f"default {_cell(field.get('default'))}",
            "takes": kind_in_words(field, schema),
        }
        for name, field in properties.items()
    ]
    yield from _table(rows, widest=None) if rows else ["It takes no arguments."]
    yield ""
    if tool.opens_test_text:
        yield "Run by `neuronaut ask` alone: it opens text on which claims are tested, and what was opened is recorded."
    else:
        yield f"Example: {example_call(tool)}"


def example_call(tool: Tool) -> str:
    """A command line that works on the embedded model."""
    given = json.dumps(tool.args.example, ensure_ascii=False).replace("'", "'\\''") if tool.args.example else ""
    return f"neuronaut tool {tool.name}" + (f" '{given}'" if given else "")


def kind_in_words(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: text, number from 1 to 5, one of a, b."""
    if "$ref" in field:
        inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
        parts = "; ".join(f"{name}: {kind_in_words(part, schema)}" for name, part in inner["properties"].items())
        return f"{{{parts}}}"
    if "anyOf" in field:
        return " or ".join(kind_in_words(part, schema) for part in field["anyOf"])
    if "enum" in field:
        return "one of " + ", ".join(field["enum"])
    low, high = field.get("minimum", field.get("minItems")), field.get("maximum", field.get("maxItems"))
    bounds = f" from {low}" * (low is not None) + f" to {high}" * (high is not None)
    match field.get("type"):
        case "array":
            size = f"{low or 0} to {high} of " if high is not None else ""
            if "items" not in field:
                return f"list of {', '.join(kind_in_words(part, schema) for part in field['prefixItems'])}"
            return f"list of {size}{kind_in_words(field['items'], schema)}"
        case "string":
            return "text"
        case "null":
            return "null"
        case kind:
            return f"{kind}{bounds}"


def _lines(payload: Mapping[str, Any]) -> Iterator[str]:
    single = {key: _joined(value) for key, value in payload.items() if not _is_block(value)}
    width = max((len(key) for key in single), default=0)
    for key, value in single.items():
        yield f"{key:<{width}}  {value}"
    for key, value in payload.items():
        if isinstance(value, Mapping):
            yield from ("", key, *(f"  {line}".rstrip() for line in _without_gap(_lines(value))))
        elif _is_block(value):
            yield from ("", key, *(f"  {line}".rstrip() for line in _rows(value)))


def _without_gap(lines: Iterator[str]) -> Iterator[str]:
    """The lines from the first that is not empty on."""
    first = next((line for line in lines if line), None)
    if first is not None:
        yield first
        yield from lines


def _is_block(value: Any) -> bool:
    """Whether a value needs lines of its own."""
    if isinstance(value, (list, tuple)):
        return any(isinstance(row, Mapping) for row in value)
    return isinstance(value, Mapping)


def _joined(value: Any) -> str:
    return ", ".join(map(_cell, value)) if isinstance(value, (list, tuple)) and value else _cell(value)


def _rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if all("pieces" in row and "activations" in row for row in rows):
        for row in rows:
            yield _context(row)
            yield from _parts(row)
    else:
        yield from _table(rows)


def _context(row: Mapping[str, Any]) -> str:
    """A text whose large activations stand in brackets behind their tokens."""
    top = max(row["activations"], key=abs)
    marked = "" if "parts" in row else _marked(row["pieces"], row["activations"], top)
    if "activation" in row:
        query = f"from {_cell(row['query'])}  " if "query" in row else ""
        where = f"{row['activation']:>8.3f}  document {row['document']:<6}  {query}"
    else:
        where = f"largest {top:>7.3f}  "
    return (where + marked).rstrip() if "parts" in row else where + marked


def _parts(row: Mapping[str, Any]) -> Iterator[str]:
    """The text of a chat part by part, with the positions of each; large activations as above."""
    top, at = max(row["activations"], key=abs), 0
    for part, run in itertools.groupby(row.get("parts", ())):
        end = at + len(list(run))
        marked = _marked(row["pieces"][at:end], row["activations"][at:end], top)
        yield f"  {f'{at}-{end - 1}':>9}  {visible(part):<18}  {marked}"
        at = end


def _marked(pieces: Sequence[str], activations: Sequence[float], top: float) -> str:
    return "".join(
        f"{visible(piece)}[{value:.3g}]" if abs(value) >= MARKED * abs(top) > 0 else visible(piece)
        for piece, value in zip(pieces, activations, strict=True)
    )


def _table(rows: Sequence[Mapping[str, Any]], *, widest: int | None = WIDEST) -> Iterator[str]:
    names = list(rows[0])
    cells = [names, *([_cut(_cell(row.get(name)), widest) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    for line in cells:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def _cut(cell: str, widest: int | None) -> str:
    return cell if widest is None or len(cell) <= widest + 4 else cell[:widest] + " …"


def _cell(value: Any) -> str:
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case float():
            return f"{value + 0.0:.4g}"
        case str():
            shown = visible(value)
            return f"'{shown}'" if shown != shown.strip() or not shown else shown
        case Mapping():
            return " ".join(_cell(one) for one in value.values())
        case list() | tuple():
            return ", ".join(_cell(one) for one in value) or "none"
    return str(value)
