"""The rows of an evaluation as a Parquet file: the plain fields as columns, and the whole row as JSON beside them."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuronaut.evals.suite import Row
from neuronaut.memory.evaluations import Evaluation, EvaluationKey
from neuronaut.tools.errors import UserError

ABOUT = "neuronaut"  # key of the file's metadata that holds the evaluation


def write_parquet(path: Path, evaluation: Evaluation, rows: Sequence[Row]) -> None:
    """Put the rows in place as a whole file; an empty one has no columns but `row`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted({name for row in rows for name, value in row.items() if not isinstance(value, (dict, list))})
    columns = {name: _column([row.get(name) for row in rows]) for name in names if name != "row"}
    columns["row"] = pa.array([json.dumps(row, ensure_ascii=False) for row in rows], pa.string())
    about = {ABOUT: json.dumps(asdict(evaluation), ensure_ascii=False)}
    part = path.with_name(f".{path.name}.part")
    pq.write_table(pa.table(columns).replace_schema_metadata(about), part)
    os.replace(part, path)


def read_parquet(path: Path) -> tuple[Evaluation, list[Row]]:
    """The evaluation and its rows. Refuses a file that `write_parquet` did not write."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[ABOUT.encode()])
        rows = [json.loads(text) for text in table.column("row").to_pylist()]
        return Evaluation(**{**about, "key": EvaluationKey(**about["key"])}), rows
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{str(path)!r} holds no results of `neuronaut eval` ({type(error).__name__})") from None


def _column(values: Sequence[Any]) -> Any:
    """An array of one type: truth values, numbers, else text."""
    import pyarrow as pa

    there = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in there):
        return pa.array(values, pa.bool_())
    if all(isinstance(value, (int, float)) for value in there):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())
