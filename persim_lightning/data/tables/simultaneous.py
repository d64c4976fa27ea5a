"""Merges the rows of an agent that have the same time, such as a dose and a measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from persim_lightning.data.tables.arrow import set_column
from persim_lightning.data.tables.checks import check_rows, is_number
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.times import sort_rows


def merge_simultaneous(
    table: pa.Table, columns: TableColumns, events: tuple[str, ...], time: np.ndarray, source: str
) -> tuple[pa.Table, np.ndarray]:
    """Merge rows of a trajectory that have the same time into one.

    A merged row has the values that are given in any of its rows. Several doses of an event column are added. The
    measurement of a merged row precedes the effect of its actions.

    Parameters
    ----------
    table : pyarrow.Table
    columns : TableColumns
    events : tuple of str
    time : ndarray, shape (R,), float64
    source : str
        Name of the table in error messages.

    Returns
    -------
    table : pyarrow.Table
    kept : ndarray, int64
        Rows of the original table that the rows of the result come from.

    Raises
    ------
    TableError
        If rows at one time contain different values of a column.
    """
    order, continues, agents = sort_rows(table, columns, source, time)
    same = continues & (np.diff(time[order]) == 0)
    if not same.any():
        return table, np.arange(table.num_rows)
    starts = np.flatnonzero(np.r_[True, ~same])
    groups = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
    for name in table.column_names:
        if name in (columns.agent, columns.time, columns.episode):
            continue
        values = table[name].to_pylist()
        adds = name in events
        number = is_number(table[name].type) and name in columns.acting and name not in columns.categorical
        bad = np.zeros(table.num_rows, dtype=bool)
        for rows in groups:
            values[rows[0]], valid = _combine([values[row] for row in rows.tolist()], adds, number)
            bad[rows[-1]] |= not valid
        check_rows(source, name, bad, "the agent has two rows with this time and different values", None, agents)
        table = set_column(table, name, pa.chunked_array([pa.array(values, table[name].type)]))
    kept = np.sort(order[starts])
    return table.take(kept), kept


def _combine(values: list[Any], adds: bool, number: bool) -> tuple[Any, bool]:
    """Combine the values of a group; returns the value and whether they agree."""
    given = [value for value in values if value is not None and value == value]
    if adds:
        return (sum(given) if given else None), True
    if number:
        # A row without an action often says so by a zero.
        given = [value for value in given if value != 0] or given[:1]
    distinct = list(dict.fromkeys(given))
    return (distinct[0] if distinct else None), len(distinct) <= 1
