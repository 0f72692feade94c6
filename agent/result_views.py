"""What an experiment took and found, for the terminal: texts as strips of tokens, rows as tables, predicates as a person writes them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from neuronaut.agent.call_views import cut
from neuronaut.agent.layout import Rows, Strip, fields, number, shown_text, title
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.text import readable
from neuronaut.tools.predicates.tree import predicate_from_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    Parts = Iterator[RenderableType]

SHOWN_ROWS = 8  # of a table or a list; --raw gives all
LONGEST = 1_500  # characters of a value


def result_parts(result: Mapping[str, Any]) -> "Parts":
    """What the tool found: texts as strips, rows as tables, of each the first ones."""
    payload = result.get("payload")
    yield title("result")
    yield from payload_parts(payload if isinstance(payload, Mapping) else {"payload": payload})
    for figure in result.get("figures", []):
        yield shown_text(f"figure {figure['name']}: --figures FOLDER keeps it")


def payload_parts(payload: Mapping[str, Any]) -> "Parts":
    """Single values as fields, then each part under its name."""
    single = {name: value for name, value in payload.items() if not _has_parts(value)}
    if single:
        yield fields((str(name), _value(value)) for name, value in single.items())
    for name, value in payload.items():
        if isinstance(value, Mapping) and value:
            yield ""
            yield title(str(name))
            yield from payload_parts(value)
        elif _has_parts(value):
            yield from _rows(str(name), value)


def _has_parts(value: Any) -> bool:
    return bool(value) and (isinstance(value, Mapping) or (isinstance(value, list) and isinstance(value[0], Mapping)))


def _rows(name: str, rows: list[Any]) -> "Parts":
    """Rows of a result: texts as strips of tokens, others as a table."""
    yield ""
    left = f" (the first {SHOWN_ROWS} of {len(rows)}; --raw gives all)" if len(rows) > SHOWN_ROWS else ""
    kept = [row for row in rows[:SHOWN_ROWS] if isinstance(row, Mapping)]
    if all({"pieces", "activations"} <= row.keys() for row in kept):
        yield title(f"{name}{left}")
        yield from (Strip(row["pieces"], row["activations"]) for row in kept)
    else:
        names = list(dict.fromkeys(str(column) for row in kept for column in row))
        yield title(f"{name}{left}")
        yield Rows(names, [[_value(row.get(column)) for column in names] for row in kept])


def predicate_text(text: str) -> str:
    """The predicate as a person writes it; what is none stays as it is."""
    try:
        return readable(predicate_from_json(text))
    except (ToolRefused, ValueError, KeyError, TypeError):
        return cut(text)


def _value(value: Any) -> str:
    """A value of an argument or a result in a cell; predicates as a person writes them."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case float():
            return number(value)
        case str():
            said = predicate_text(value) if value.startswith("{") else value
            return cut(said if said.strip() == said and said else f"'{said}'", LONGEST)
        case list():
            gap = "\n" if any(isinstance(one, str) and one.startswith("{") for one in value) else ", "
            left = [f"… {len(value) - SHOWN_ROWS} more"] if len(value) > SHOWN_ROWS else []
            return gap.join([*map(_value, value[:SHOWN_ROWS]), *left]) or "none"
        case Mapping():
            return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    return str(value)
