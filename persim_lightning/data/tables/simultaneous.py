"""Merges the rows of an agent that have the same time, such as a dose and a measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

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
    group = np.cumsum(np.r_[True, ~same]) - 1
    first = order[np.flatnonzero(np.r_[True, ~same])]
    repeated = np.flatnonzero(np.bincount(group) > 1)
    members = {index: order[group == index] for index in repeated.tolist()}
    merged = {}
    for name in table.column_names:
        if name in (columns.agent, columns.time, columns.episode):
            continue
        values = table[name].to_pylist()
        adds = name in events
        number = is_number(table[name].type) and name in columns.acting and name not in columns.categorical
        bad = np.zeros(table.num_rows, dtype=bool)
        for index, rows in members.items():
            value, valid = _combine([values[row] for row in rows.tolist()], adds, number)
            values[first[index]] = value
            bad[rows[-1]] |= not valid
        check_rows(source, name, bad, "the agent has two rows with this time and different values", None, agents)
        merged[name] = pa.chunked_array([pa.array(values, table[name].type)])
    for name, column in merged.items():
        table = table.set_column(table.column_names.index(name), name, column)
    kept = np.sort(first)
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
