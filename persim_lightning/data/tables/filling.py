"""Fills empty cells of action and input columns as the user says, and reports those that stay empty."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.tables.arrow import set_column
from persim_lightning.data.tables.checks import describe_rows, is_number, row_agents
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.times import sort_rows
from persim_lightning.errors import ConfigurationError, PersimWarning


def fill_actions(
    table: pa.Table, columns: TableColumns, events: tuple[str, ...], source: str, time: np.ndarray
) -> pa.Table:
    """Fill empty cells of action and input columns.

    `columns.fill` says what they mean; those of event columns mean zero by default.

    Raises
    ------
    ConfigurationError
        If a fill value does not have the type of its column.
    """
    for name in columns.acting:
        value = columns.fill.get(name, 0.0 if name in events else None)
        if value is None or not table[name].null_count:
            continue
        if value == "last":
            table = set_column(table, name, _last_known(table, columns, name, source, time))
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number != is_number(table[name].type):
            raise ConfigurationError(f"columns.fill: {value!r} does not fit column '{name}' of type {table[name].type}")
        table = set_column(table, name, table[name].fill_null(pa.scalar(value).cast(table[name].type)))
    return table


def _last_known(table: pa.Table, columns: TableColumns, name: str, source: str, time: np.ndarray) -> pa.ChunkedArray:
    """Fill empty cells of a column by the value before them in the same trajectory."""
    order, continues, _ = sort_rows(table, columns, source, time)
    known = pc.is_valid(table[name]).to_numpy()[order]
    rows = np.arange(len(order))
    first = np.maximum.accumulate(np.where(np.r_[True, ~continues], rows, 0))
    before = np.maximum.accumulate(np.where(known, rows, -1))
    source_row = np.where(before >= first, before, rows)
    taken = np.empty(len(order), dtype=np.int64)
    taken[order] = order[source_row]
    return pa.chunked_array([table[name].combine_chunks().take(pa.array(taken))])


def warn_of_empty_actions(table: pa.Table, columns: TableColumns, source: str, empty: np.ndarray) -> None:
    """Warn of rows (R,) whose action is empty, so that their step to the next row is not learned from."""
    rows = np.flatnonzero(empty)
    if not len(rows):
        return
    name = next(name for name in columns.acting if table[name][int(rows[0])].as_py() is None)
    problem = "empty, so the step to the next row is left out"
    described = describe_rows(source, name, rows, problem, row_agents(table[columns.agent]))
    warnings.warn(
        f"{described}; fill={{'{name}': 0}} or 'last' says what empty cells mean",
        PersimWarning,
        stacklevel=2,
    )
