"""Converts a user's own table to the canonical form: counts steps from times, and encodes actions as numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from persim_lightning.data.tables.actions import clean_actions, encode_columns, infer_action_columns, is_discrete
from persim_lightning.data.tables.agent_covariates import (
    encode_covariates,
    infer_covariates,
    warn_of_constant_actions,
)
from persim_lightning.data.tables.arrow import id_column, numeric_text, plain_types, set_column, without_empty_texts
from persim_lightning.data.tables.canonical import trajectories_from_table, unused_name
from persim_lightning.data.tables.checks import (
    check_rows,
    check_type,
    derived_from,
    describe_rows,
    is_number,
    row_agents,
)
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.events import find_events, spread_events
from persim_lightning.data.tables.filling import fill_actions, warn_of_empty_actions
from persim_lightning.data.tables.simultaneous import merge_simultaneous
from persim_lightning.data.tables.sources import as_table
from persim_lightning.data.tables.times import MAX_DURATION, Clock, calendar_clock, count_steps, is_uneven, row_times
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import PersimWarning, TableError
from persim_lightning.types import ActionColumn, Schema

# Larger numbers overflow in single precision once they are squared.
_LARGEST = 1e18
# Inverse relative rounding errors of float32 and float64; the share of a state's spread from which rounding is noticed,
# and at which too little is left of it.
_SINGLE_DIGITS, _DOUBLE_DIGITS, _NOTICEABLE, _LOST = 2.0**24, 2.0**53, 1e-4, 100.0


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
    table, name = as_table(source, name, (schema.agent, schema.episode))
    if not schema.encoded:
        return trajectories_from_table(table, schema, name)
    return user_trajectories(table, fitted_columns(schema, table.column_names), name, schema)


def fitted_columns(schema: Schema, present: Sequence[str]) -> TableColumns:
    """Return the columns of the table that a simulator was fitted on; optional ones only if they are `present`."""
    episode, reward, terminated = (
        label if label in present else None for label in (schema.episode, schema.reward, schema.terminated)
    )
    return TableColumns(
        state=list(schema.state),
        action=[column.name for column in schema.user_actions if column.name not in schema.inputs],
        categorical=[name for name, categories in schema.action_columns if categories is not None],
        inputs=list(schema.inputs),
        fill=dict(schema.fill),
        covariates=[name for name, _ in schema.covariates if name in present],
        events=list(schema.events),
        agent=schema.agent,
        time=schema.time,
        step=schema.step or "row",
        gaps=schema.gaps,  # type: ignore[arg-type]
        episode=episode,
        reward=reward,
        terminated=terminated,
    )


def user_trajectories(
    table: pa.Table,
    columns: TableColumns,
    source: str,
    fitted: Schema | None = None,
    max_duration: float = MAX_DURATION,
) -> Trajectories:
    """Convert a user's table to trajectories.

    Parameters
    ----------
    table : pyarrow.Table
    columns : TableColumns
    source : str
        Name of the table in error messages.
    fitted : Schema, optional
        Schema of the table that a simulator was fitted on. Times and actions are encoded in the same way.
    max_duration : float
        Base steps from a row to the next above which a new trajectory starts, if `columns.gaps` is 'keep'.

    Returns
    -------
    Trajectories
        Its schema describes how times and actions are encoded.

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
    repeated = [name for name in columns.used if table.column_names.count(name) > 1]
    if repeated:
        raise TableError(f"{source}: there are several columns '{repeated[0]}'")
    table = _canonical_types(plain_types(table.select(columns.used)), columns, source)
    seconds = row_times(table[columns.time], columns.time, source)
    # A given step is in seconds.
    calendar = fitted.calendar if fitted is not None else "" if isinstance(columns.step, int | float) else None
    clock = calendar_clock(table[columns.time], seconds, calendar)
    table = clean_actions(table, columns, source)
    events = find_events(table, columns, is_uneven(table, columns, source, clock.time))
    kept = np.arange(table.num_rows)
    if columns.step != "row":
        table, kept = merge_simultaneous(table, columns, events, clock.time, source)
    with derived_from(kept):
        return _merged_trajectories(
            table, columns, source, fitted, events, Clock(clock.time[kept], clock.calendar), seconds[kept], max_duration
        )


def _merged_trajectories(
    table: pa.Table,
    columns: TableColumns,
    source: str,
    fitted: Schema | None,
    events: tuple[str, ...],
    clock: Clock,
    seconds: np.ndarray,
    max_duration: float,
) -> Trajectories:
    """Convert a table with at most one row for every (agent, time), see :func:`user_trajectories`."""
    time = clock.time
    table = fill_actions(table, columns, events, source, time)
    unknown = np.zeros(table.num_rows, dtype=bool)
    for name in columns.acting:
        unknown |= pc.is_null(table[name]).to_numpy()
    steps = count_steps(table, columns, source, time, unknown, max_duration)
    warn_of_empty_actions(table, columns, source, unknown & ~steps.last_recorded)
    last = steps.last
    actions = fitted.action_columns if fitted is not None else infer_action_columns(table, columns, source, last)
    encoded = encode_columns(table, actions, source, last)
    conflicts = [name for name in encoded if name in columns.used and name not in columns.acting]
    if conflicts:
        raise TableError(f"{source}: column '{conflicts[0]}' has the name of an encoded action: rename it")
    schema = fitted or Schema(
        state=tuple(columns.state),
        action=tuple(encoded),
        num_actions=_num_actions(actions),
        agent=columns.agent,
        time=columns.time,
        episode=columns.episode or unused_name("episode", columns.used),
        terminated=columns.terminated or unused_name("terminated", columns.used),
        reward=columns.reward or unused_name("reward", columns.used),
        action_columns=actions,
        step=steps.length,
        gaps=columns.gaps,
        encoded=True,
        calendar=clock.calendar,
        inputs=tuple(columns.inputs),
        events=events,
        covariates=infer_covariates(table, columns, source),
        bounds={name: (low, high) for name, (low, high) in columns.bounds.items()},
        double=_needs_double(table, columns, source),
        fill=dict(columns.fill),
    )
    if fitted is None:
        warn_of_constant_actions(table, columns, source)
        _warn_of_states_outside(table, columns, source)
        _warn_of_single_rows(table, columns, source, last)
    canonical = {schema.agent: table[columns.agent], schema.time: pa.array(steps.time)}
    canonical |= {name: table[name] for name in schema.state} | encoded
    if steps.episode is not None:
        canonical[schema.episode] = pa.array(steps.episode)
    if columns.reward is not None:
        canonical[schema.reward] = table[columns.reward]
    if columns.terminated is not None:
        canonical[schema.terminated] = _booleans(table[columns.terminated], columns.terminated, source)
    trajectories = trajectories_from_table(pa.table(canonical), schema, source, seconds, steps.duration)
    if columns.covariates and len(columns.covariates) == len(schema.covariates):
        ids = trajectories.agent_ids
        values = encode_covariates(table, schema.agent, schema.covariates, ids, source)
        trajectories = replace(trajectories, covariates=torch.from_numpy(values))
    del canonical, table, encoded
    # Arrow keeps freed memory in its pool: more than the trajectories themselves need.
    pa.default_memory_pool().release_unused()
    return spread_events(trajectories, [schema.action.index(name) for name in events])


def _canonical_types(table: pa.Table, columns: TableColumns, source: str) -> pa.Table:
    """Convert every column to the type of its role: ids, numbers where all cells are, texts without empty ones."""
    for name in columns.used:
        table = set_column(table, name, canonical_column(table[name], name, columns, source))
    for name in columns.state:
        if is_number(table[name].type):
            large = pc.abs(table[name].cast(pa.float64(), safe=False)).fill_null(0.0).to_numpy()
            check_rows(source, name, np.isfinite(large) & (large > _LARGEST), "too large a number")
    return table


def canonical_column(column: pa.ChunkedArray, name: str, columns: TableColumns, source: str) -> pa.ChunkedArray:
    """Convert a column to the type of its role, see :func:`_canonical_types`."""
    if name in columns.ids:
        column = id_column(column, name, source)
    elif name in columns.state or (name in columns.acting and name not in columns.categorical):
        column = numeric_text(column)
    if name in (*columns.acting, *columns.covariates) and pa.types.is_string(column.type):
        column = without_empty_texts(column)
    return column


def _needs_double(table: pa.Table, columns: TableColumns, source: str) -> bool:
    """Whether float32 would round the changes of a state noticeably.

    Raises
    ------
    TableError
        If float64 would round a state, or float32 an action or input, so much that little is left of its differences.
    """
    precise = {name: _digits_needed(table, columns.agent, name) for name in (*columns.state, *columns.acting)}
    for name, needed in precise.items():
        if needed > (_DOUBLE_DIGITS if name in columns.state else _SINGLE_DIGITS) / _LOST:
            raise TableError(
                f"{source}: column '{name}' has values that are too large beside their differences: subtract an offset"
            )
    return any(precise[name] > _SINGLE_DIGITS * _NOTICEABLE for name in columns.state)


def _digits_needed(table: pa.Table, agent: str, name: str) -> float:
    """Largest number of a column over its usual standard deviation within an agent; 0 for other columns."""
    if not is_number(table[name].type):
        return 0.0
    column = table[name]
    values = column.cast(pa.float64(), safe=False)
    # Differences of integers are exact, even where float64 would round the integers themselves.
    shifted = (
        pc.subtract(column, pc.min(column)).cast(pa.float64(), safe=False)
        if pa.types.is_integer(column.type)
        else values
    )
    pairs = pa.table({"agent": table[agent], "value": pc.if_else(pc.is_finite(values), shifted, None)})
    spread = pairs.group_by("agent").aggregate([("value", "stddev")])["value_stddev"].to_numpy()
    spread = spread[spread > 0]
    if not len(spread):
        return 0.0
    largest = pc.max(pc.abs(pc.if_else(pc.is_finite(values), values, None))).as_py()
    return float(largest / np.median(spread))


def _warn_of_states_outside(table: pa.Table, columns: TableColumns, source: str) -> None:
    """Warn of recorded states outside their bounds, which predictions keep."""
    for name, (low, high) in columns.bounds.items():
        if not is_number(table[name].type):
            continue
        values = table[name].cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
        limits = -np.inf if low is None else low, np.inf if high is None else high
        rows = np.flatnonzero((values < limits[0]) | (values > limits[1]))
        if len(rows):
            problem, agents = "outside the bounds, which predictions keep", row_agents(table[columns.agent])
            warnings.warn(describe_rows(source, name, rows, problem, agents), PersimWarning, stacklevel=2)


def _warn_of_single_rows(table: pa.Table, columns: TableColumns, source: str, last: np.ndarray) -> None:
    """Warn of agents without a step from a row to the next; refuse a table of such agents alone."""
    agents = set(table[columns.agent].to_pylist())
    moving = set(table.filter(pa.array(~last))[columns.agent].to_pylist())
    if not moving:
        raise TableError(f"{source}: no agent has two rows in a trajectory: there is nothing to learn from")
    single = sorted(agents - moving, key=str)
    if single:
        names = ", ".join(map(str, single[:5])) + (", …" if len(single) > 5 else "")
        warnings.warn(
            f"{source}: {len(single)} agent(s) have no two consecutive rows ({names}): their simulators are the "
            "population's prior",
            PersimWarning,
            stacklevel=2,
        )


def _num_actions(actions: Sequence[ActionColumn]) -> int | None:
    """Number of discrete actions; a table without actions has a single one."""
    if not actions:
        return 1
    return len(actions[0].categories or ()) if is_discrete(actions) else None


def _booleans(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Convert the numbers 0 and 1 to booleans."""
    if pa.types.is_boolean(column.type):
        return column
    check_type(source, name, column.type, is_number(column.type), "booleans")
    values = column.cast(pa.float64(), safe=False).fill_null(0).to_numpy()
    check_rows(source, name, (values != 0) & (values != 1), "neither 0 nor 1")
    return pa.chunked_array([pa.array(values == 1)])
