"""Encodes the action columns of a user's table as the vectors or codes that simulators take, and decodes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.tables.arrow import plain_types
from persim_lightning.data.tables.checks import check_rows, is_number, is_numeral
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import TableError
from persim_lightning.types import ActionColumn, Schema

# An action column with more different values is probably a column of quantities.
_MAX_CATEGORIES = 100


def encode_actions(values: Mapping[str, Any], schema: Schema, source: str = "actions") -> np.ndarray:
    """Encode actions from the user's columns.

    Parameters
    ----------
    values : dict of str to sequence or scalar
        Column -> H values, or one for all steps; scalars alone are one step.
    schema : Schema
    source : str
        Name of the actions in error messages.

    Returns
    -------
    ndarray, shape (H,) int64 or (H, A) float32

    Raises
    ------
    TableError
        If a column is missing, a category is unknown, or a quantity is not a finite number.
    """
    names = [column.name for column in schema.user_actions]
    values = {str(name): column for name, column in values.items()}
    missing = [name for name in names if name not in values]
    if missing:
        raise TableError(f"{source}: missing column(s) {', '.join(missing)}")
    lengths = [len(values[name]) for name in names if np.ndim(values[name])]
    steps = lengths[0] if lengths else 1
    if names and not steps:
        raise TableError(f"{source}: column '{names[0]}' has no values")
    columns = {name: values[name] if np.ndim(values[name]) else [values[name]] * steps for name in names}
    try:
        table = plain_types(pa.table({name: pa.array(column) for name, column in columns.items()}))
    except (pa.ArrowException, ValueError) as error:
        raise TableError(f"{source}: not a table of actions ({str(error).splitlines()[0]})") from error
    encoded = encode_columns(table, schema.user_actions, source, np.zeros(table.num_rows, dtype=bool))
    arrays = [column.to_numpy(zero_copy_only=False) for column in encoded.values()]
    for name, array in zip(encoded, arrays, strict=True):
        check_rows(source, name, ~np.isfinite(array.astype(float)), "empty, NaN or infinite")
    return arrays[0].astype(np.int64) if schema.num_actions is not None else np.stack(arrays, 1).astype(np.float32)


def decode_actions(actions: np.ndarray, schema: Schema) -> dict[str, list[object]]:
    """Decode actions into the user's columns; the inverse of :func:`encode_actions`.

    Parameters
    ----------
    actions : ndarray, shape (H,) integers or (H, A)
        The largest of a column's indicators selects its category.
    schema : Schema

    Returns
    -------
    dict of str to list
        Column -> H values.
    """
    if not schema.action:
        return {}
    if schema.num_actions is not None:
        [(name, categories)] = schema.user_actions
        assert categories is not None
        return {name: [categories[int(code)] for code in actions]}
    decoded: dict[str, list[object]] = {}
    start = 0
    for name, categories in schema.user_actions:
        width = 1 if categories is None else len(categories)
        block = actions[:, start : start + width]
        start += width
        decoded[name] = (
            block[:, 0].tolist() if categories is None else [categories[index] for index in block.argmax(1).tolist()]
        )
    return decoded


def is_discrete(columns: Sequence[ActionColumn]) -> bool:
    """Whether the columns are one discrete action: a single column of categories. Others are encoded as vectors."""
    return len(columns) == 1 and columns[0].categories is not None


def clean_actions(table: pa.Table, columns: TableColumns, source: str) -> pa.Table:
    """Convert NaN to empty cells, and codes to integers.

    Data frames and CSV files read integers as floating-point numbers if the column has empty cells.
    """
    for name in columns.acting:
        column = table[name].combine_chunks()
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        if name in columns.categorical and pa.types.is_floating(column.type):
            values = column.fill_null(0.0).to_numpy(zero_copy_only=False)
            check_rows(source, name, values != np.floor(values), "not an integer, but the column is categorical")
            column = column.cast(pa.int64())
        table = table.set_column(table.column_names.index(name), name, pa.chunked_array([column]))
    return table


def infer_action_columns(
    table: pa.Table, columns: TableColumns, source: str, last: np.ndarray
) -> tuple[ActionColumn, ...]:
    """Find out which action columns contain categories, and collect those outside of last rows, shape (R,).

    Raises
    ------
    TableError
        If a column is of another type, mixes text and numbers, or has too few or too many categories.
    """
    inferred = []
    used = table.filter(pa.array(~last)) if not last.all() else table
    for name in columns.acting:
        kind = table[name].type
        if is_number(kind) and name not in columns.categorical:
            inferred.append(ActionColumn(name, None))
            continue
        if not (pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
            raise TableError(f"{source}: action column '{name}' has type {kind}, expected numbers or categories")
        values = sorted(pc.drop_null(pc.unique(used[name])).to_pylist())
        _check_not_mixed(table[name], name, values, source)
        if not 2 <= len(values) <= _MAX_CATEGORIES:
            raise TableError(
                f"{source}: action column '{name}' has {len(values)} categories, expected 2 … {_MAX_CATEGORIES}"
            )
        inferred.append(ActionColumn(name, tuple(values)))
    return tuple(inferred)


def _check_not_mixed(column: pa.ChunkedArray, name: str, values: Sequence[object], source: str) -> None:
    """Raise an error for text in a column of numbers: it is a typing error, not a category."""
    numbers = [is_numeral(value) for value in values]
    if 0 < sum(numbers) < len(values) and sum(numbers) >= len(values) / 2:
        text = values[numbers.index(False)]
        bad = pc.equal(column, pa.scalar(text)).fill_null(False).to_numpy()
        check_rows(source, name, bad, f"'{text}' is text in a column of numbers")


def encode_columns(
    table: pa.Table, columns: Sequence[ActionColumn], source: str, last: np.ndarray
) -> dict[str, pa.Array]:
    """Encode the action columns of a table.

    Parameters
    ----------
    table : pyarrow.Table
        R rows.
    columns : sequence of ActionColumn
    source : str
        Name of the table in error messages.
    last : ndarray of bool, shape (R,)
        Last rows of trajectories, whose actions may be empty.

    Returns
    -------
    dict of str to pyarrow.Array
        Coordinate -> R numbers: quantities unchanged, an indicator for every category, or the codes of the only column.

    Raises
    ------
    TableError
        If a cell is empty, a category is unknown, or a column has the wrong type.
    """
    encoded: dict[str, pa.Array] = {}
    for name, categories in columns:
        if categories is None:
            if not is_number(table[name].type):
                raise TableError(f"{source}: action column '{name}' has type {table[name].type}, expected numbers")
            encoded[name] = table[name].cast(pa.float64(), safe=False).combine_chunks()
            continue
        try:
            values = table[name].cast(pa.scalar(categories[0]).type).combine_chunks()
        except pa.ArrowInvalid as error:
            raise TableError(f"{source}: action column '{name}': {error}") from error
        codes = pc.index_in(values, pa.array(categories))
        check_rows(source, name, pc.is_null(values).to_numpy(zero_copy_only=False) & ~last, "empty")
        unknown = pc.and_(pc.is_null(codes), pc.is_valid(values)).to_numpy(zero_copy_only=False) & ~last
        if unknown.any():
            value = values[int(unknown.argmax())].as_py()
            expected = ", ".join(map(str, categories))
            check_rows(source, name, unknown, f"unknown category {value!r}, expected one of {expected}")
        if is_discrete(columns):
            encoded[name] = codes
        else:
            encoded |= {
                f"{name}={category}": pc.equal(codes, code).cast(pa.float64(), safe=False)
                for code, category in enumerate(categories)
            }
    return encoded
