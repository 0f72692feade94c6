"""A program as data, and its interpreter in plain Python: it knows no model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from neuronaut.tools.programs.rules import CONSTANT, Prefer, Start

Role = Literal["indicator", "aggregator", "mover", "combiner", "output", "none"]
Columns = dict[str, list[int]]


@dataclass(frozen=True)
class Term:
    """Which labels of a key's variable suit which labels of a query's: allowed[key label] holds the query labels."""

    key: str
    query: str
    allowed: tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Table:
    """A value for each combination of labels that was seen of the variables read; `other` stands for all that were not."""

    reads: tuple[str, ...]
    entries: Mapping[tuple[int, ...], float]
    other: float

    def value(self, columns: Mapping[str, Sequence[int]], at: int) -> float:
        """The value at a place."""
        return self.entries.get(tuple(columns[name][at] for name in self.reads), self.other)


@dataclass(frozen=True)
class Selection:
    """Where a head looks; see Rule."""

    terms: tuple[Term, ...]
    prefer: Prefer
    start: Start


@dataclass(frozen=True)
class Line:
    """One variable. select: None of neurons, whose table is of their own place; of heads it is of the places looked at,
    and `start_value` of the start token. numbers: ascending, where the value is a number: the label of a number is that of
    the nearest; None where the table gives labels. labels: their names."""

    name: str
    role: Role
    table: Table
    labels: tuple[str, ...]
    select: Selection | None = None
    start_value: float = 0.0
    numbers: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Program:
    """words: pieces of the texts. lines: each after those that it reads. output: (labels of what it reads) to the piece."""

    words: tuple[str, ...]
    length: int
    lines: tuple[Line, ...]
    output: Table
    pieces: tuple[str, ...]

    def says(self, text: Sequence[int]) -> list[str]:
        """The piece said at each place of a text, given as numbers of words."""
        columns = self.columns(text)
        return [self.pieces[int(self.output.value(columns, at))] for at in range(len(text))]

    def columns(self, text: Sequence[int]) -> Columns:
        """The label of each variable at each place."""
        n = len(text)
        columns: Columns = {"token": list(text), "position": list(range(n)), CONSTANT: [0] * n}
        for line in self.lines:
            columns[line.name] = [_label(line, columns, at) for at in range(n)]
        return columns

    def as_data(self) -> dict[str, Any]:
        """JSON."""
        return {
            "words": list(self.words),
            "length": self.length,
            "lines": [_line_data(line) for line in self.lines],
            "output": _table_data(self.output),
            "pieces": list(self.pieces),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Program":
        """The program that `as_data` gave."""
        lines = tuple(_line_of(line) for line in data["lines"])
        return cls(tuple(data["words"]), data["length"], lines, _table_of(data["output"]), tuple(data["pieces"]))


def _label(line: Line, columns: Columns, at: int) -> int:
    if line.select is None:
        return int(line.table.value(columns, at))
    places = _selected(line.select, columns, at)
    values = [line.table.value(columns, place) for place in places]
    if line.select.start == "always" or (line.select.start == "otherwise" and not places):
        values.append(line.start_value)
    if not values:
        return 0
    if line.numbers is None:
        return int(Counter(values).most_common(1)[0][0])
    mean = sum(values) / len(values)
    return min(range(len(line.numbers)), key=lambda i: abs(line.numbers[i] - mean))  # type: ignore[index]


def _selected(select: Selection, columns: Columns, at: int) -> list[int]:
    """The places that are looked at from a place."""
    suited = [(columns[term.key], term.allowed, columns[term.query][at]) for term in select.terms]
    found = [place for place in range(at + 1) if all(here in allowed[key[place]] for key, allowed, here in suited)]
    match select.prefer:
        case "all":
            return found
        case "first":
            return found[:1]
        case "last":
            return found[-1:]


def _table_data(table: Table) -> dict[str, Any]:
    entries = [[*labels, value] for labels, value in sorted(table.entries.items())]
    return {"reads": list(table.reads), "entries": entries, "other": table.other}


def _line_data(line: Line) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": line.name,
        "role": line.role,
        "table": _table_data(line.table),
        "labels": list(line.labels),
        "select": None,
        "start_value": line.start_value,
        "numbers": None if line.numbers is None else list(line.numbers),
    }
    if line.select is not None:
        terms = [
            {"key": term.key, "query": term.query, "allowed": [sorted(labels) for labels in term.allowed]}
            for term in line.select.terms
        ]
        found["select"] = {"terms": terms, "prefer": line.select.prefer, "start": line.select.start}
    return found


def _table_of(data: Mapping[str, Any]) -> Table:
    entries = {tuple(labels): value for *labels, value in data["entries"]}
    return Table(tuple(data["reads"]), entries, data["other"])


def _line_of(data: Mapping[str, Any]) -> Line:
    select = None
    if data["select"] is not None:
        terms = tuple(
            Term(one["key"], one["query"], tuple(frozenset(labels) for labels in one["allowed"]))
            for one in data["select"]["terms"]
        )
        select = Selection(terms, data["select"]["prefer"], data["select"]["start"])
    numbers = None if data["numbers"] is None else tuple(data["numbers"])
    name, role, table = data["name"], data["role"], _table_of(data["table"])
    return Line(name, role, table, tuple(data["labels"]), select, data["start_value"], numbers)
