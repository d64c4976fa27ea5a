"""Converts Arrow columns to the few types that the rest of the package uses."""

from __future__ import annotations

import pyarrow as pa


def plain_types(table: pa.Table) -> pa.Table:
    """Convert categories to their values, kinds of strings to plain strings, and decimals to float64."""
    for index, column in enumerate(table.columns):
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = _decode(column)
        if pa.types.is_string_view(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if column.type != kind:
            table = table.set_column(index, table.column_names[index], column)
    return table


def _decode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values of a dictionary-encoded column. Arrow's cast cannot do this for all kinds of text."""
    chunks = []
    for chunk in column.chunks:
        kind = chunk.dictionary.type
        text = not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
        values = pa.array(chunk.dictionary.to_pylist(), pa.string() if text else kind)
        chunks.append(values.take(chunk.indices))
    return pa.chunked_array(chunks)


# Texts that stand for an empty cell in a column of numbers.
_EMPTY = frozenset({"", ".", "na", "n/a", "nan", "null", "none"})


def set_column(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    """Replace a column."""
    return table.set_column(table.column_names.index(name), name, column)


def numeric_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column of text that contains only numbers and empty cells to float64; leave others as they are."""
    if pa.types.is_null(column.type):
        return column.cast(pa.float64())
    if not pa.types.is_string(column.type):
        return column
    numbers: list[float | None] = []
    for cell in column.to_pylist():
        if cell is None or cell.strip().lower() in _EMPTY:
            numbers.append(None)
            continue
        try:
            numbers.append(float(cell))
        except ValueError:
            return column
    if all(number is None for number in numbers):
        return column
    return pa.chunked_array([pa.array(numbers, pa.float64())])
