"""Rows that a person reads, a notebook shows, and pandas or polars take over with their types."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from neuronaut.agent.view import visible
from neuronaut.tools.errors import UserError

if TYPE_CHECKING:
    import pandas
    import polars

Row = Mapping[str, Any]
Type = Literal["text", "int", "float", "bool"]
WIDEST = 48  # characters of a cell as text
LONGEST = 40  # rows that are shown; `to_pandas` has all


@dataclass(frozen=True)
class Table(Sequence[Row]):
    """Rows with typed columns. shown: the columns of its text and its HTML, all where it names none.

    `table[0]` is a row, `table["unit"]` a column; None is a value that was not measured.
    """

    columns: Mapping[str, Type]
    rows: tuple[Row, ...]
    title: str = ""
    shown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> "Table": ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> "Row | Table | list[Any]":
        if isinstance(key, str):
            if key not in self.columns:
                raise UserError(f"there is no column {key!r}: choose from {', '.join(self.columns)}")
            return [row.get(key) for row in self.rows]
        if isinstance(key, slice):
            return Table(self.columns, self.rows[key], self.title, self.shown)
        return self.rows[key]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def to_pandas(self) -> "pandas.DataFrame":
        """A pandas frame: text, Int64, float64 and boolean columns; what was not measured is missing."""
        try:
            import pandas as pd
        except ImportError:
            raise UserError("pandas is not installed: `pip install pandas`, or use to_polars()") from None
        dtypes = {"text": "str", "int": "Int64", "float": "float64", "bool": "boolean"}
        return pd.DataFrame({name: pd.Series(self[name], dtype=dtypes[kind]) for name, kind in self.columns.items()})

    def to_polars(self) -> "polars.DataFrame":
        """A polars frame: String, Int64, Float64 and Boolean columns; what was not measured is null."""
        try:
            import polars as pl
        except ImportError:
            raise UserError("polars is not installed: `pip install polars`, or use to_pandas()") from None
        dtypes = {"text": pl.String(), "int": pl.Int64(), "float": pl.Float64(), "bool": pl.Boolean()}
        return pl.DataFrame(
            {name: self[name] for name in self.columns},
            schema={name: dtypes[kind] for name, kind in self.columns.items()},
        )

    @property
    def heads(self) -> tuple[str, ...]:
        """The columns that are shown."""
        return self.shown or tuple(self.columns)

    def __str__(self) -> str:
        title = f"{self.title}: " if self.title else ""
        count = f"{title}{len(self)} row{'' if len(self) == 1 else 's'}"
        if not self.rows:
            return count
        cells = [[cut(cell(row.get(name))) for name in self.heads] for row in self.rows[:LONGEST]]
        widths = [max(map(len, column)) for column in zip(self.heads, *cells, strict=True)]
        right = [self.columns[name] in ("int", "float") for name in self.heads]
        lines = [
            "  ".join(
                one.rjust(w) if r else one.ljust(w) for one, w, r in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in (self.heads, *cells)
        ]
        return "\n".join([*lines, count + (f", the first {LONGEST} are shown" if len(self) > LONGEST else "")])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from neuronaut.agent.api.html import table_html

        return table_html(self)


def cell(value: object) -> str:
    """A value as text, its control characters visible; "" for one that is missing."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if math.isfinite(value) else "none"
        case list() | tuple():
            return ", ".join(map(cell, value))
        case _:
            return visible(str(value))


def cut(text: str, longest: int = WIDEST) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def table_of(rows: Sequence[Row], title: str = "") -> Table:
    """Rows of a tool's result, typed by what stands in them; a column of anything but numbers is text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {name: _kind([row.get(name) for row in rows]) for name in names}
    plain = tuple({name: _plain(row.get(name), kinds[name]) for name in names} for row in rows)
    return Table(kinds, plain, title)


def _kind(values: Sequence[Any]) -> Type:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return "bool"
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in known):
        return "text"
    return "float" if any(isinstance(value, float) for value in known) or not known else "int"


def _plain(value: Any, kind: Type) -> Any:
    if value is None or kind == "bool":
        return value
    if kind == "text":
        return value if isinstance(value, str) else cell(value)
    return int(value) if kind == "int" else float(value)
