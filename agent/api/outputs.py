"""What a tool found, as Python values: numbers, arrays, tables and figures."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from neuronaut.agent.api.tables import Table, Type, cell, table_of
from neuronaut.agent.tool_output import result_lines
from neuronaut.agent.view import visible
from neuronaut.tools.errors import UserError
from neuronaut.tools.figures import Figure
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolResult

if TYPE_CHECKING:
    import pandas
    import polars

    from neuronaut.memory.review.plots import Plot

MEASURED: dict[str, Type] = {
    "metric": "text", "value": "float", "low": "float", "high": "float", "null": "float", "percentile": "float", "n": "int",
    "n_of": "text", "unit": "text",
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class ToolOutput:
    """What a tool found: `output["f1"]` is a number, an array or a part of the payload; tables become frames.

    Nothing of it is recorded; `lab.ask` records what it measures.
    """

    tool: str
    args: dict[str, Any] = field(hash=False)
    result: ToolResult = field(hash=False)

    @property
    def call(self) -> str:
        """The arguments that were given."""
        return visible(", ".join(f"{name}={json.dumps(one, ensure_ascii=False)}" for name, one in self.args.items()))

    @property
    def measurements(self) -> dict[str, Measurement]:
        """Each measurement by its metric: value, interval, null, n."""
        return {one.metric: one for one in self.result.measurements}

    @property
    def payload(self) -> dict[str, Any]:
        """All that is not a measurement, an array or a figure."""
        return self.result.payload

    @property
    def arrays(self) -> dict[str, Array]:
        """The numpy arrays that the tool made, by name."""
        return self.result.arrays

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What the tool drew."""
        return self.result.figures

    @cached_property
    def measured(self) -> Table:
        """The measurements as a table."""
        rows = []
        for one in self.result.measurements:
            low, high = one.ci or (None, None)
            rows.append({
                "metric": one.metric, "value": one.value, "low": low, "high": high, "null": one.null_value,
                "percentile": one.null_percentile, "n": one.n, "n_of": one.n_of, "unit": one.unit,
            })  # fmt: skip
        shown = [name for name in MEASURED if any(row[name] is not None for row in rows)]
        return Table(MEASURED, tuple(rows), "measurements", tuple(shown))

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The lists of rows in the payload, by name."""
        return {name: table_of(value, name) for name, value in self.payload.items() if _is_rows(value)}

    @property
    def facts(self) -> dict[str, str]:
        """The rest of the payload, in words."""
        rest = {name: value for name, value in self.payload.items() if not _is_rows(value)}
        return {name: _words(value) for name, value in rest.items()}

    def __getitem__(self, name: str) -> Any:
        """A measurement's value, an array, or a part of the payload. Refuses another name."""
        if name in self.measurements:
            return self.measurements[name].value
        if name in self.arrays:
            return self.arrays[name]
        if name in self.payload:
            return self.payload[name]
        known = ", ".join([*self.measurements, *self.arrays, *self.payload])
        raise UserError(f"{self.tool} found no {name!r}: choose from {known or 'nothing, for it found nothing'}")

    def table(self, name: str | None = None) -> Table:
        """A table of the payload by name; without one the first, or the measurements where there is none."""
        if name == "measurements" or (name is None and not self.tables):
            return self.measured
        if name is not None and name not in self.tables:
            raise UserError(
                f"{self.tool} made no table {name!r}: choose from {', '.join(['measurements', *self.tables])}"
            )
        return next(iter(self.tables.values())) if name is None else self.tables[name]

    def to_pandas(self, name: str | None = None) -> "pandas.DataFrame":
        """`table(name)` as a pandas frame."""
        return self.table(name).to_pandas()

    def to_polars(self, name: str | None = None) -> "polars.DataFrame":
        """`table(name)` as a polars frame."""
        return self.table(name).to_polars()

    def plot(self, name: str | None = None) -> "Plot":
        """A figure of the tool as a Plotly figure: the first, or the one of that name."""
        from neuronaut.memory.review.plots import plotly_figure

        drawn = {figure.name: figure.plotly for figure in self.figures if figure.plotly is not None}
        if not drawn:
            svg = "; its drawings are in .figures, as SVG" if self.figures else ""
            raise UserError(f"{self.tool} drew nothing that Plotly can show{svg}")
        if name is not None and name not in drawn:
            raise UserError(f"{self.tool} drew no {name!r}: choose from {', '.join(drawn)}")
        return plotly_figure(drawn[name] if name is not None else next(iter(drawn.values())))

    def __str__(self) -> str:
        return "\n".join([f"{self.tool}({self.call})", *result_lines(self.result)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from neuronaut.agent.api.html import output_html

        return output_html(self)


def _is_rows(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(one, dict) for one in value)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return " · ".join(f"{name}: {_words(one)}" for name, one in value.items())
    return "none" if value is None else cell(value)
