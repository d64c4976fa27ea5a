"""Actions by the columns of a user's table, from what simulators take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.tables.arrow import plain_types
from persim_lightning.data.tables.checks import fail_at, is_number, is_numeral
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import TableError
from persim_lightning.types import ActionColumn, Schema


def decode_actions(actions: np.ndarray, schema: Schema) -> dict[str, list[object]]:
    """The user's columns from what the simulator takes: the reverse of
    :func:`~persim_lightning.data.tables.actions.encode_actions`.

    Parameters
    ----------
    actions : ndarray, shape (H,) integers or (H, A)
        Of a category's indicators the largest one counts.
    schema : Schema
    """
    if schema.num_actions is not None:
        [(name, categories)] = schema.user_actions
        assert categories is not None
        return {name: [categories[int(code)] for code in actions]}
    decoded: dict[str, list[object]] = {}
    start = 0
    for name, categories in schema.user_actions:
        width = 1 if categories is None else len(categories)
        own = actions[:, start : start + width]
        start += width
        decoded[name] = (
            own[:, 0].tolist() if categories is None else [categories[index] for index in own.argmax(1).tolist()]
        )
    return decoded


# Categories of an action column; more are more likely a mistaken amount.
_MAX_CATEGORIES = 100


def encode_actions(values: dict[str, Sequence[object]], schema: Schema, source: str = "actions") -> np.ndarray:
    """Actions given by the names of the user's columns, as the simulator takes them.

    Parameters
    ----------
    values : dict of str to sequence
        Column -> H values.
    schema : Schema
    source : str
        Names them in errors.

    Returns
    -------
    ndarray, shape (H,) int64 or (H, A) float32

    Raises
    ------
    TableError
        If a column is missing, a category is unknown, or an amount is not a finite number.
    """
    names = [column.name for column in schema.user_actions]
    missing = [name for name in names if name not in values]
    if missing:
        raise TableError(f"{source}: missing column(s) {', '.join(missing)}")
    try:
        table = plain_types(pa.table({name: pa.array(values[name]) for name in names}))
    except (pa.ArrowException, ValueError) as error:
        raise TableError(f"{source}: not a table of actions ({str(error).splitlines()[0]})") from error
    encoded = encode_columns(table, schema.user_actions, source, np.zeros(table.num_rows, dtype=bool))
    arrays = [column.to_numpy(zero_copy_only=False) for column in encoded.values()]
    for name, array in zip(encoded, arrays, strict=True):
        fail_at(source, name, ~np.isfinite(array.astype(float)), "empty, NaN or infinite")
    return arrays[0].astype(np.int64) if schema.num_actions is not None else np.stack(arrays, 1).astype(np.float32)


def whole_codes(table: pa.Table, columns: TableColumns, last: np.ndarray, source: str) -> pa.Table:
    """Leave out the actions of last rows, after which nothing was done, and make codes whole numbers.

    Empty cells have made them fractions in data frames and CSV files.
    """
    for name in columns.action:
        column = table[name].combine_chunks()
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        column = pc.if_else(pa.array(last), None, column)
        if name in columns.categorical and pa.types.is_floating(column.type):
            values = column.fill_null(0.0).to_numpy(zero_copy_only=False)
            fail_at(source, name, values != np.floor(values), "not a whole number, but the column holds codes")
            column = column.cast(pa.int64())
        table = table.set_column(table.column_names.index(name), name, pa.chunked_array([column]))
    return table


def is_discrete_columns(columns: Sequence[ActionColumn]) -> bool:
    """A single column of categories is a discrete action; everything else becomes a vector."""
    return len(columns) == 1 and columns[0].categories is not None


def action_columns_of(table: pa.Table, columns: TableColumns, source: str) -> tuple[ActionColumn, ...]:
    found = []
    for name in columns.action:
        kind = table[name].type
        if is_number(kind) and name not in columns.categorical:
            found.append(ActionColumn(name, None))
            continue
        if not (pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
            raise TableError(f"{source}: action column '{name}' holds {kind}, neither amounts nor categories")
        values = sorted(pc.drop_null(pc.unique(table[name])).to_pylist())
        _refuse_mixed(table[name], name, values, source)
        if not 2 <= len(values) <= _MAX_CATEGORIES:
            raise TableError(
                f"{source}: action column '{name}' holds {len(values)} categories, not 2 … {_MAX_CATEGORIES}"
            )
        found.append(ActionColumn(name, tuple(values)))
    return tuple(found)


def _refuse_mixed(column: pa.ChunkedArray, name: str, values: Sequence[object], source: str) -> None:
    """Text among numbers is a slip of the pen, not a category."""
    numbers = [is_numeral(value) for value in values]
    if 0 < sum(numbers) < len(values) and sum(numbers) >= len(values) / 2:
        odd = values[numbers.index(False)]
        bad = pc.equal(column, pa.scalar(odd)).fill_null(False).to_numpy()
        fail_at(source, name, bad, f"'{odd}' stands among numbers")


def encode_columns(
    table: pa.Table, columns: Sequence[ActionColumn], source: str, last: np.ndarray
) -> dict[str, pa.Array]:
    """Coordinates of actions; empty in last rows."""
    encoded: dict[str, pa.Array] = {}
    for name, categories in columns:
        if categories is None:
            if not is_number(table[name].type):
                raise TableError(f"{source}: action column '{name}' holds {table[name].type}, not numbers")
            encoded[name] = table[name].cast(pa.float64()).combine_chunks()
            continue
        try:
            values = table[name].cast(pa.scalar(categories[0]).type).combine_chunks()
        except pa.ArrowInvalid as error:
            raise TableError(f"{source}: action column '{name}': {error}") from error
        codes = pc.index_in(values, pa.array(categories))
        fail_at(source, name, pc.is_null(values).to_numpy(zero_copy_only=False) & ~last, "empty")
        unknown = pc.and_(pc.is_null(codes), pc.is_valid(values)).to_numpy(zero_copy_only=False)
        if unknown.any():
            value = values[int(unknown.argmax())].as_py()
            known = ", ".join(map(str, categories))
            fail_at(source, name, unknown, f"unknown category {value!r}: the known ones are {known}")
        if is_discrete_columns(columns):
            encoded[name] = codes
        else:
            encoded |= {
                f"{name}={category}": pc.equal(codes, code).cast(pa.float64())
                for code, category in enumerate(categories)
            }
    return encoded
