"""The texts of a column of a Parquet file, read row group by row group."""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from neuronaut.tools.corpora.reading import Reading
from neuronaut.tools.corpora.sources import Source
from neuronaut.tools.errors import UserError

_BATCH_BYTES = 8 << 20
_MOST_ROWS = 1024


def column_texts(source: Source, read: Reading) -> Iterator[str]:
    """The texts of the column that was named, else of `text`, else of the only column of strings; null is no text.

    Refuses: no Parquet file, a damaged one, no such column, several columns of strings of which none is `text`.
    """
    with source.here() as file:
        try:
            yield from _texts(file, source, read)
        except pa.ArrowException as error:
            raise UserError(
                f"{source.name!r} cannot be read as Parquet, whole or in part: {str(error).splitlines()[0]}"
            ) from error


def _texts(file: IO[bytes], source: Source, read: Reading) -> Iterator[str]:
    table = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    column = _column(table.schema_arrow, source)
    for number in range(table.num_row_groups):
        group = table.metadata.row_group(number)
        each = max(1, group.total_byte_size // max(1, group.num_rows))
        rows = max(1, min(_MOST_ROWS, _BATCH_BYTES // each))
        for batch in table.iter_batches(batch_size=rows, row_groups=[number], columns=[column]):
            values = batch.column(0)
            if pa.types.is_dictionary(values.type):
                values = values.dictionary_decode()
            for raw in values.cast(pa.large_binary()).to_pylist():
                yield "" if raw is None else read.decoded(raw)


def _column(schema: Any, source: Source) -> str:
    strings = [one.name for one in schema if _holds_text(one.type)]
    listed = ", ".join(map(repr, strings)) or "none"
    if source.column is not None:
        if source.column not in strings:
            raise UserError(
                f"{source.name!r} has no column of text {source.column!r}: its columns of text are {listed}"
            )
        return source.column
    if "text" in strings:
        return "text"
    if not strings:
        names = ", ".join(map(repr, schema.names)) or "none"
        raise UserError(f"{source.name!r} has no column of text: its columns are {names}")
    if len(strings) > 1:
        raise UserError(
            f"{source.name!r} has several columns of text ({listed}): name one behind the file, as in "
            f"{source.name}#{strings[0]}"
        )
    return strings[0]


def _holds_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
