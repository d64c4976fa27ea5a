"""Arrow columns of any type as the few types that the rest of the package knows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.csv


def plain_types(table: pa.Table) -> pa.Table:
    """Categories and views as the strings, and decimals as the numbers that they stand for."""
    for index, column in enumerate(table.columns):
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = _decoded(column)
        if pa.types.is_string_view(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if column.type != kind:
            table = table.set_column(index, table.column_names[index], column)
    return table


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values of a dictionary-encoded column; some kinds of text cannot be cast while they are encoded."""
    chunks = []
    for chunk in column.chunks:
        kind = chunk.dictionary.type
        text = not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
        values = pa.array(chunk.dictionary.to_pylist(), pa.string() if text else kind)
        chunks.append(values.take(chunk.indices))
    return pa.chunked_array(chunks)
