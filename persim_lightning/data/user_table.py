"""A user's own table in the canonical form: steps counted from times, actions of any kind encoded as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.columns import TableColumns, as_table
from persim_lightning.data.table import fail_at, is_number, is_numeral, trajectories_from_table
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import TableError
from persim_lightning.types import ActionColumn, Schema

# Times may lie this share of a step off.
_TOLERANCE = 1e-3
# Categories of an action column; more are more likely a mistaken amount.
_MAX_CATEGORIES = 100


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
    table = _plain_types(table.select(columns.used))
    clock = row_times(table[columns.time], columns.time, source)
    step, time, episode, last = _steps(table, columns, source, clock)
    table = _whole_codes(table, columns, last, source)
    found = known.action_columns if known is not None else _action_columns(table, columns, source)
    encoded = _encode_actions(table, found, source, last)
    taken = [name for name in encoded if name in columns.used and name not in columns.action]
    if taken:
        raise TableError(f"{source}: column '{taken[0]}' has the name of an encoded action: rename it")
    discrete = _is_discrete(found)
    schema = known or Schema(
        state=tuple(columns.state),
        action=tuple(encoded),
        num_actions=len(found[0].categories or ()) if discrete else None,
        agent=columns.agent,
        time=columns.time,
        episode=columns.episode or _free("episode", columns.used),
        terminated=columns.terminated or _free("terminated", columns.used),
        reward=columns.reward or _free("reward", columns.used),
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


def trajectories_table(trajectories: Trajectories) -> pa.Table:
    """Trajectories as a canonical table with a further column, their rows' times."""
    schema, lengths = trajectories.schema, trajectories.lengths
    own = np.repeat(np.arange(trajectories.num_trajectories), lengths.numpy())
    last = np.zeros(len(own), dtype=bool)
    last[trajectories.offsets[1:].numpy() - 1] = True
    ids = pa.array(list(trajectories.agent_ids))
    columns = {
        schema.agent: ids.take(pa.array(trajectories.row_agent().numpy())),
        schema.time: pa.array(np.arange(len(own)) - trajectories.offsets.numpy()[own]),
        schema.episode: pa.array(own),
    }
    columns |= {name: pa.array(trajectories.state[:, index].numpy()) for index, name in enumerate(schema.state)}
    actions = trajectories.action[:, None] if schema.num_actions is not None else trajectories.action
    columns |= {name: pa.array(actions[:, index].numpy(), mask=last) for index, name in enumerate(schema.action)}
    if trajectories.reward is not None:
        columns[schema.reward] = pa.array(trajectories.reward.numpy(), mask=last)
    columns[schema.terminated] = pa.array(last & trajectories.terminated.numpy()[own])
    if trajectories.time is not None:
        columns[clock_column(schema)] = pa.array(trajectories.time.numpy())
    return pa.table(columns)


def clock_column(schema: Schema) -> str:
    """Name of the further column of :func:`trajectories_table`, one that the schema has not taken."""
    roles = (schema.agent, schema.time, schema.episode, schema.terminated, schema.reward)
    return _free("clock", (*roles, *schema.state, *schema.action))


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
    names = [column.name for column in schema.actions_as_given]
    missing = [name for name in names if name not in values]
    if missing:
        raise TableError(f"{source}: missing column(s) {', '.join(missing)}")
    try:
        table = _plain_types(pa.table({name: pa.array(values[name]) for name in names}))
    except (pa.ArrowException, ValueError) as error:
        raise TableError(f"{source}: not a table of actions ({str(error).splitlines()[0]})") from error
    encoded = _encode_actions(table, schema.actions_as_given, source, np.zeros(table.num_rows, dtype=bool))
    arrays = [column.to_numpy(zero_copy_only=False) for column in encoded.values()]
    for name, array in zip(encoded, arrays, strict=True):
        fail_at(source, name, ~np.isfinite(array.astype(float)), "empty, NaN or infinite")
    return arrays[0].astype(np.int64) if schema.num_actions is not None else np.stack(arrays, 1).astype(np.float32)


def _free(name: str, taken: Sequence[str]) -> str:
    """A column name that is not taken."""
    while name in taken:
        name = f"{name}_"
    return name


def _plain_types(table: pa.Table) -> pa.Table:
    """Categories and views as the strings, and decimals as the numbers that they stand for."""
    for index, column in enumerate(table.columns):
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = _decoded(column)
        if pa.types.is_string_view(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if column.type != kind:
            table = table.set_column(index, table.column_names[index], column)
    return table


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values of a dictionary-encoded column; some kinds of text cannot be cast while they are encoded."""
    chunks = []
    for chunk in column.chunks:
        kind = chunk.dictionary.type
        text = not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
        values = pa.array(chunk.dictionary.to_pylist(), pa.string() if text else kind)
        chunks.append(values.take(chunk.indices))
    return pa.chunked_array(chunks)


def _whole_codes(table: pa.Table, columns: TableColumns, last: np.ndarray, source: str) -> pa.Table:
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


def _is_discrete(columns: Sequence[ActionColumn]) -> bool:
    """A single column of categories is a discrete action; everything else becomes a vector."""
    return len(columns) == 1 and columns[0].categories is not None


def _action_columns(table: pa.Table, columns: TableColumns, source: str) -> tuple[ActionColumn, ...]:
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


def _encode_actions(
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
        if _is_discrete(columns):
            encoded[name] = codes
        else:
            encoded |= {
                f"{name}={category}": pc.equal(codes, code).cast(pa.float64())
                for code, category in enumerate(categories)
            }
    return encoded


def _flags(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Booleans, also from the numbers 0 and 1."""
    if pa.types.is_boolean(column.type):
        return column
    if not is_number(column.type):
        raise TableError(f"{source}: column '{name}' holds {column.type}, not booleans")
    values = column.cast(pa.float64()).fill_null(0).to_numpy()
    fail_at(source, name, (values != 0) & (values != 1), "neither 0 nor 1")
    return pa.chunked_array([pa.array(values == 1)])


def _steps(
    table: pa.Table, columns: TableColumns, source: str, time: np.ndarray
) -> tuple[float | None, np.ndarray, np.ndarray | None, np.ndarray]:
    """Count steps.

    Returns
    -------
    step : float or None
        Time between rows; None where rows follow each other whatever their times say.
    time : ndarray, shape (R,), int64
        Step of every row of the table within its trajectory.
    episode : ndarray, shape (R,), int64, or None
        Trajectory of every row among its agent's; None where every agent has one.
    last : ndarray, shape (R,), bool
        Rows with which a trajectory ends.
    """
    agents = table[columns.agent].combine_chunks().dictionary_encode()
    fail_at(source, columns.agent, pc.is_null(agents).to_numpy(zero_copy_only=False), "no agent id")
    agent, ids = agents.indices.to_numpy(), agents.dictionary.to_pylist()
    own = np.zeros(len(time), dtype=np.int64)
    if columns.episode is not None:
        episodes = table[columns.episode].combine_chunks().dictionary_encode()
        fail_at(
            source, columns.episode, pc.is_null(episodes).to_numpy(zero_copy_only=False), "empty", None, (ids, agent)
        )
        own = episodes.indices.to_numpy().astype(np.int64)
    order = np.lexsort((time, own, agent))
    follows = (np.diff(agent[order]) == 0) & (np.diff(own[order]) == 0)
    distance = np.diff(time[order])
    twice = np.r_[False, follows & (distance == 0)]
    fail_at(source, columns.time, twice, "the agent has two rows of this time", order, (ids, agent))
    if columns.step == "row" or not follows.any():
        apart, gap = np.ones(len(distance)), np.zeros(len(distance), dtype=bool)
        step = None
    else:
        step = float(columns.step or _commonest(distance[follows]))
        apart = distance / step
        gap = follows & (np.abs(apart - 1) > _TOLERANCE)
    if gap.any() and columns.gaps == "error":
        where = np.flatnonzero(gap)[0]
        names = [table[columns.time][int(order[where + side])].as_py() for side in (0, 1)]
        fail_at(
            *(source, columns.time, np.r_[False, gap]),
            f"{names[1]} follows {names[0]}, but rows lie {step:g} apart: mend the table, or ask for gaps: split "
            "or step: row",
            *(order, (ids, agent)),
        )
    starts = np.r_[True, ~follows | gap]
    trajectory = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    counted = np.empty(len(time), dtype=np.int64)
    counted[order] = np.arange(len(time)) - first[trajectory]
    number = np.empty(len(time), dtype=np.int64)
    number[order] = trajectory
    last = np.empty(len(time), dtype=bool)
    last[order] = np.r_[starts[1:], True]
    several = columns.episode is not None or bool(gap.any())
    return step, counted, number if several else None, last


def row_times(column: pa.ChunkedArray, name: str, source: str) -> np.ndarray:
    """Times as float64: numbers as they are, dates and timestamps in seconds."""
    fail_at(source, name, pc.is_null(column).to_numpy(), "no time")
    if pa.types.is_string(column.type):
        try:
            column = column.cast(pa.timestamp("us"))
        except pa.ArrowInvalid as error:
            raise TableError(f"{source}: column '{name}' holds text that is no date ({error})") from error
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    if not is_number(column.type):
        raise TableError(f"{source}: column '{name}' holds {column.type}, neither numbers nor dates")
    times: np.ndarray = column.cast(pa.float64()).to_numpy()
    fail_at(source, name, ~np.isfinite(times), "not a finite time")
    return times


def _commonest(distances: np.ndarray) -> float:
    """The commonest distance between rows; numbers that differ by rounding count as one."""
    rounded = np.array([float(f"{value:.6g}") for value in np.unique(distances)])
    values, inverse = np.unique(rounded, return_inverse=True)
    counts = np.bincount(inverse, weights=np.unique(distances, return_counts=True)[1])
    return float(values[counts.argmax()])
