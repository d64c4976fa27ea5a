"""A user's own table in the canonical form: steps counted from times, actions of any kind encoded as numbers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from persim_lightning.data.tables.actions import action_columns_of, encode_columns, is_discrete_columns, whole_codes
from persim_lightning.data.tables.arrow import plain_types
from persim_lightning.data.tables.canonical import free_name, trajectories_from_table
from persim_lightning.data.tables.checks import fail_at, is_number
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.sources import as_table
from persim_lightning.data.tables.times import count_steps, row_times
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import TableError
from persim_lightning.types import Schema


def read_like(schema: Schema, source: Any, name: str = "table") -> Trajectories:
    """Further rows, in the columns of the table that a simulator was fitted on, encoded alike.

    Parameters
    ----------
    schema : Schema
        Of that table. Its columns for episode, reward and end may be missing here.
    source : path, pyarrow.Table, pandas or polars DataFrame, or dict of columns
    name : str
        What to call it in errors where it is no file.

    Raises
    ------
    TableError
        If something does not fit; names column, agent and row.
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


def user_trajectories(table: pa.Table, columns: TableColumns, source: str, known: Schema | None = None) -> Trajectories:
    """Read a user's table.

    Parameters
    ----------
    table : pyarrow.Table
    columns : TableColumns
    source : str
        Names the table in errors.
    known : Schema, optional
        Of the table that a simulator was fitted on: further tables are encoded alike.

    Returns
    -------
    Trajectories
        With a schema that tells how actions are encoded and how long a step takes.

    Raises
    ------
    TableError
        If something does not fit; names column, agent and row.
    """
    missing = [name for name in columns.used if name not in table.column_names]
    if missing:
        raise TableError(
            f"{source}: missing column(s) {', '.join(missing)}; the table has {', '.join(table.column_names)}"
        )
    table = plain_types(table.select(columns.used))
    clock = row_times(table[columns.time], columns.time, source)
    step, time, episode, last = count_steps(table, columns, source, clock)
    table = whole_codes(table, columns, last, source)
    found = known.action_columns if known is not None else action_columns_of(table, columns, source)
    encoded = encode_columns(table, found, source, last)
    taken = [name for name in encoded if name in columns.used and name not in columns.action]
    if taken:
        raise TableError(f"{source}: column '{taken[0]}' has the name of an encoded action: rename it")
    discrete = is_discrete_columns(found)
    schema = known or Schema(
        state=tuple(columns.state),
        action=tuple(encoded),
        num_actions=len(found[0].categories or ()) if discrete else None,
        agent=columns.agent,
        time=columns.time,
        episode=columns.episode or free_name("episode", columns.used),
        terminated=columns.terminated or free_name("terminated", columns.used),
        reward=columns.reward or free_name("reward", columns.used),
        action_columns=found,
        step=step,
        gaps=columns.gaps,
    )
    canonical = {schema.agent: table[columns.agent], schema.time: pa.array(time)}
    canonical |= {name: table[name] for name in schema.state} | encoded
    if episode is not None:
        canonical[schema.episode] = pa.array(episode)
    if columns.reward is not None:
        canonical[schema.reward] = table[columns.reward]
    if columns.terminated is not None:
        canonical[schema.terminated] = _flags(table[columns.terminated], columns.terminated, source)
    trajectories = trajectories_from_table(pa.table(canonical), schema, source, clock)
    del canonical, table, encoded
    # Arrow keeps what it has freed: more than the trajectories themselves take.
    pa.default_memory_pool().release_unused()
    return trajectories


def _flags(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Booleans, also from the numbers 0 and 1."""
    if pa.types.is_boolean(column.type):
        return column
    if not is_number(column.type):
        raise TableError(f"{source}: column '{name}' holds {column.type}, not booleans")
    values = column.cast(pa.float64()).fill_null(0).to_numpy()
    fail_at(source, name, (values != 0) & (values != 1), "neither 0 nor 1")
    return pa.chunked_array([pa.array(values == 1)])
