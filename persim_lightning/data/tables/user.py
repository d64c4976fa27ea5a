"""Converts a user's own table to the canonical form: counts steps from times, and encodes actions as numbers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from persim_lightning.data.tables.actions import clean_actions, encode_columns, infer_action_columns, is_discrete
from persim_lightning.data.tables.arrow import plain_types
from persim_lightning.data.tables.canonical import trajectories_from_table, unused_name
from persim_lightning.data.tables.checks import check_rows, check_type, is_number
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.sources import as_table
from persim_lightning.data.tables.times import count_steps, row_times
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import TableError
from persim_lightning.types import Schema


def read_like(schema: Schema, source: Any, name: str = "table") -> Trajectories:
    """Read a further table with the columns and the encoding of the table that a simulator was fitted on.

    Parameters
    ----------
    schema : Schema
        Schema of the fitted table. The columns for episode, reward and termination may be missing here.
    source : path, pyarrow.Table, pandas or polars DataFrame, or dict of columns
    name : str
        Name of the table in error messages, unless it is a file.

    Raises
    ------
    TableError
        If the table is malformed; names column, agent and row.
    """
    table, name = as_table(source, name)
    if not schema.action_columns:
        return trajectories_from_table(table, schema, name)
    episode, reward, terminated = (
        label if label in table.column_names else None for label in (schema.episode, schema.reward, schema.terminated)
    )
    columns = TableColumns(
        state=list(schema.state),
        action=[column.name for column in schema.action_columns],
        agent=schema.agent,
        time=schema.time,
        step=schema.step or "row",
        gaps=schema.gaps,  # type: ignore[arg-type]
        episode=episode,
        reward=reward,
        terminated=terminated,
    )
    return user_trajectories(table, columns, name, schema)


def user_trajectories(
    table: pa.Table, columns: TableColumns, source: str, fitted: Schema | None = None
) -> Trajectories:
    """Convert a user's table to trajectories.

    Parameters
    ----------
    table : pyarrow.Table
    columns : TableColumns
    source : str
        Name of the table in error messages.
    fitted : Schema, optional
        Schema of the table that a simulator was fitted on. Actions are encoded in the same way.

    Returns
    -------
    Trajectories
        Its schema describes how actions are encoded and how long a step takes.

    Raises
    ------
    TableError
        If the table is malformed; names column, agent and row.
    """
    missing = [name for name in columns.used if name not in table.column_names]
    if missing:
        raise TableError(
            f"{source}: missing column(s) {', '.join(missing)}; the table has {', '.join(table.column_names)}"
        )
    table = plain_types(table.select(columns.used))
    clock = row_times(table[columns.time], columns.time, source)
    steps = count_steps(table, columns, source, clock)
    table = clean_actions(table, columns, steps.last, source)
    actions = fitted.action_columns if fitted is not None else infer_action_columns(table, columns, source)
    encoded = encode_columns(table, actions, source, steps.last)
    conflicts = [name for name in encoded if name in columns.used and name not in columns.action]
    if conflicts:
        raise TableError(f"{source}: column '{conflicts[0]}' has the name of an encoded action: rename it")
    schema = fitted or Schema(
        state=tuple(columns.state),
        action=tuple(encoded),
        num_actions=len(actions[0].categories or ()) if is_discrete(actions) else None,
        agent=columns.agent,
        time=columns.time,
        episode=columns.episode or unused_name("episode", columns.used),
        terminated=columns.terminated or unused_name("terminated", columns.used),
        reward=columns.reward or unused_name("reward", columns.used),
        action_columns=actions,
        step=steps.length,
        gaps=columns.gaps,
    )
    canonical = {schema.agent: table[columns.agent], schema.time: pa.array(steps.time)}
    canonical |= {name: table[name] for name in schema.state} | encoded
    if steps.episode is not None:
        canonical[schema.episode] = pa.array(steps.episode)
    if columns.reward is not None:
        canonical[schema.reward] = table[columns.reward]
    if columns.terminated is not None:
        canonical[schema.terminated] = _booleans(table[columns.terminated], columns.terminated, source)
    trajectories = trajectories_from_table(pa.table(canonical), schema, source, clock)
    del canonical, table, encoded
    # Arrow keeps freed memory in its pool: more than the trajectories themselves need.
    pa.default_memory_pool().release_unused()
    return trajectories


def _booleans(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Convert the numbers 0 and 1 to booleans."""
    if pa.types.is_boolean(column.type):
        return column
    check_type(source, name, column.type, is_number(column.type), "booleans")
    values = column.cast(pa.float64()).fill_null(0).to_numpy()
    check_rows(source, name, (values != 0) & (values != 1), "neither 0 nor 1")
    return pa.chunked_array([pa.array(values == 1)])
