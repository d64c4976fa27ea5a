"""Converts Arrow columns to the few types that the rest of the package uses."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.errors import TableError


def plain_types(table: pa.Table) -> pa.Table:
    """Convert all columns by :func:`plain_column`."""
    for index, column in enumerate(table.columns):
        plain = plain_column(column)
        if plain.type != column.type:
            table = table.set_column(index, table.column_names[index], plain)
    return table


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert categories to their values, kinds of strings to plain strings, and decimals to float64."""
    if pa.types.is_dictionary(column.type):
        column = _decode(column)
    if pa.types.is_string_view(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    if pa.types.is_decimal(column.type) or pa.types.is_float16(column.type):
        return column.cast(pa.float64(), safe=False)
    return column


def _decode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values of a dictionary-encoded column. Arrow's cast cannot do this for all kinds of text."""
    chunks = []
    for chunk in column.chunks:
        kind = chunk.dictionary.type
        values = chunk.dictionary
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            texts = [None if value is None else _category_text(value, kind) for value in values.to_pylist()]
            values = pa.array(texts, pa.string())
        chunks.append(values.take(chunk.indices))
    return pa.chunked_array(chunks)


def _category_text(value: object, kind: pa.DataType) -> str:
    """Text of a category; intervals of pandas as pandas prints them."""
    if isinstance(value, dict) and set(value) == {"left", "right"}:
        closed = getattr(kind, "closed", "right")
        left, right = "[" if closed in ("left", "both") else "(", "]" if closed in ("right", "both") else ")"
        return f"{left}{value['left']}, {value['right']}{right}"
    return str(value)


# Texts that stand for an empty cell in a column of numbers (in any case), and in one of categories.
_EMPTY_NUMBERS = pa.array(["", ".", "na", "n/a", "nan", "null", "none"])
_EMPTY_CATEGORIES = pa.array(["", ".", "NA", "NaN"])


def set_column(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    """Replace a column."""
    return table.set_column(table.column_names.index(name), name, column)


def numeric_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column of text that contains only numbers and empty cells to float64; leave others as they are."""
    if pa.types.is_null(column.type):
        return column.cast(pa.float64(), safe=False)
    if not pa.types.is_string(column.type):
        return column
    try:
        trimmed = pc.utf8_trim_whitespace(column)
        empty = pc.is_in(pc.utf8_lower(trimmed), _EMPTY_NUMBERS)
        numbers = pc.if_else(empty, None, trimmed).cast(pa.float64(), safe=False)
    except pa.ArrowInvalid:
        return column
    return column if numbers.null_count == len(numbers) else numbers


def without_empty_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace texts that stand for empty cells in a column of categories, such as `NA` and `.`, by null."""
    return pc.if_else(pc.is_in(column, _EMPTY_CATEGORIES), None, column)


def id_column(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Convert ids to int64 or text; ids of other kinds, such as UUIDs and dates, become text.

    Raises
    ------
    TableError
        If ids are numbers that are not integers.
    """
    column = plain_column(column)
    kind = column.type
    if pa.types.is_integer(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column.cast(pa.string())
    if pa.types.is_string(kind):
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    if pa.types.is_floating(kind):
        # pandas reads integers as floating-point numbers if a cell is empty.
        values = pc.if_else(pc.is_nan(column), None, column)
        if not pc.all(pc.equal(values, pc.floor(values)), min_count=0).as_py():
            raise TableError(f"{source}: column '{name}' has type {kind}, expected integers or text as ids")
        return values.cast(pa.int64())
    return pa.chunked_array(
        [pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())]
    )
