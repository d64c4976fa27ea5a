"""The canonical table of trajectories: a long table with one row per (agent, t), in Parquet or CSV.

The next state of a row is the state of the next row; the last row of a trajectory has no action. Reading checks the
whole table; errors name file, column, agent and row (counted from 0, without the header).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from persim_lightning.data.tables.reader import ColumnReader
from persim_lightning.data.tables.sources import read_table
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import TableError
from persim_lightning.types import Schema


def load_trajectories(path: Path, schema: Schema, clock: str | None = None) -> Trajectories:
    """Read and validate a table of trajectories.

    Parameters
    ----------
    path : Path
        Parquet or CSV. Rows may come in any order.
    schema : Schema
        Expected columns. `episode`, `terminated` and `reward` are optional in the table.
    clock : str, optional
        An additional column with the time of every row, as :func:`trajectories_table` writes it.

    Raises
    ------
    TableError
        If the table is malformed; see :class:`~persim_lightning.data.tables.reader.ColumnReader`.
    """
    table = read_table(path)
    if clock is None:
        return trajectories_from_table(table, schema, str(path))
    if clock not in table.column_names:
        raise TableError(f"{path}: no column '{clock}'")
    return trajectories_from_table(table.drop_columns(clock), schema, str(path), table[clock].to_numpy())


def trajectories_from_table(
    table: pa.Table, schema: Schema, source: str, clock: np.ndarray | None = None
) -> Trajectories:
    """Validate a table in memory and convert it to tensors.

    Parameters
    ----------
    table : pyarrow.Table
    schema : Schema
    source : str
        Name of the table in error messages.
    clock : ndarray, shape (R,), float64, optional
        Time of every row, if the table's time column only counts steps.

    Raises
    ------
    TableError
        If the table is malformed.
    """
    reader = ColumnReader(table, schema, source)
    reader.check_names()
    agent_ids, agent = reader.agent_ids()
    time = reader.integers(schema.time)
    has_episode = schema.episode in table.column_names
    episode = reader.integers(schema.episode) if has_episode else np.zeros(len(time), dtype=np.int64)

    order = np.lexsort((time, episode, agent))
    reader.order, reader.agents = order, (agent_ids, agent)
    agent, time, episode = agent[order], time[order], episode[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(agent) != 0) | (np.diff(episode) != 0)])
    offsets = np.r_[starts, len(agent)]
    last = np.zeros(len(agent), dtype=bool)
    last[offsets[1:] - 1] = True
    reader.check_steps(time, last)
    reader.check_lengths(starts, offsets)

    state = np.stack([reader.numbers(name, np.zeros_like(last)) for name in schema.state], axis=1)
    delta = np.zeros(state.shape, dtype=np.float32)
    delta[:-1] = state[1:] - state[:-1]
    delta[last] = 0
    if schema.num_actions is None:
        columns = [reader.numbers(name, last) for name in schema.action]
        action = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
    else:
        action = torch.from_numpy(reader.action_codes(schema.action[0], schema.num_actions, last))
    terminated = np.zeros(len(starts), dtype=bool)
    if schema.terminated in table.column_names:
        terminated = reader.terminations(schema.terminated, last)[offsets[1:] - 1]
    reward = None
    if schema.reward in table.column_names:
        reward = torch.from_numpy(reader.numbers(schema.reward, last).astype(np.float32))
    return Trajectories(
        schema=schema,
        agent_ids=agent_ids,
        agent=torch.from_numpy(agent[starts].astype(np.int64)),
        offsets=torch.from_numpy(offsets.astype(np.int64)),
        state=torch.from_numpy(state.astype(np.float32)),
        action=action,
        delta=torch.from_numpy(delta),
        terminated=torch.from_numpy(terminated),
        reward=reward,
        time=None if clock is None else torch.from_numpy(clock[order]),
    )


def trajectories_table(trajectories: Trajectories) -> pa.Table:
    """Convert trajectories to a canonical table; :func:`clock_column` names an additional column with their times."""
    schema, lengths = trajectories.schema, trajectories.lengths
    trajectory = np.repeat(np.arange(trajectories.num_trajectories), lengths.numpy())
    last = np.zeros(len(trajectory), dtype=bool)
    last[trajectories.offsets[1:].numpy() - 1] = True
    ids = pa.array(list(trajectories.agent_ids))
    columns = {
        schema.agent: ids.take(pa.array(trajectories.row_agent().numpy())),
        schema.time: pa.array(np.arange(len(trajectory)) - trajectories.offsets.numpy()[trajectory]),
        schema.episode: pa.array(trajectory),
    }
    columns |= {name: pa.array(trajectories.state[:, index].numpy()) for index, name in enumerate(schema.state)}
    actions = trajectories.action[:, None] if schema.num_actions is not None else trajectories.action
    columns |= {name: pa.array(actions[:, index].numpy(), mask=last) for index, name in enumerate(schema.action)}
    if trajectories.reward is not None:
        columns[schema.reward] = pa.array(trajectories.reward.numpy(), mask=last)
    columns[schema.terminated] = pa.array(last & trajectories.terminated.numpy()[trajectory])
    if trajectories.time is not None:
        columns[clock_column(schema)] = pa.array(trajectories.time.numpy())
    return pa.table(columns)


def clock_column(schema: Schema) -> str:
    """Name of the time column in :func:`trajectories_table`, different from all columns of the schema."""
    roles = (schema.agent, schema.time, schema.episode, schema.terminated, schema.reward)
    return unused_name("clock", (*roles, *schema.state, *schema.action))


def unused_name(name: str, used: Sequence[str]) -> str:
    """Append underscores to a column name until it is not among the used ones."""
    while name in used:
        name = f"{name}_"
    return name
