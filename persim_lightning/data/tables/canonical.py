"""The canonical form of the data: a long table, one row per (agent, t), in Parquet or CSV.

The next state of a row is the next row's state; the last row of a trajectory has no action. Everything that could be
wrong with a table is checked here, and reported with file, column, agent and row (counted from 0, without header).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch

from persim_lightning.data.tables.checks import Checker
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
        Columns to find. `episode`, `terminated` and `reward` are optional in the table.
    clock : str, optional
        A further column: every row's time, where the table's own counts steps only.

    Raises
    ------
    TableError
        If anything does not fit; see :class:`Checker`.
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
    """Validate a table in memory and turn it into tensors.

    Parameters
    ----------
    table : pyarrow.Table
    schema : Schema
    source : str
        Names it in errors.
    clock : ndarray, shape (R,), float64, optional
        Every row's time, where the table's own column counts steps only.
    """
    check = Checker(table, schema, source)
    check.columns()
    agent_ids, agent = check.labels(schema.agent)
    time = check.integers(schema.time)
    has_episode = schema.episode in table.column_names
    episode = check.integers(schema.episode) if has_episode else np.zeros(len(time), dtype=np.int64)

    order = np.lexsort((time, episode, agent))
    check.order, check.agents = order, (agent_ids, agent)
    agent, time, episode = agent[order], time[order], episode[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(agent) != 0) | (np.diff(episode) != 0)])
    offsets = np.r_[starts, len(agent)]
    last = np.zeros(len(agent), dtype=bool)
    last[offsets[1:] - 1] = True
    check.steps(time, last)
    check.lengths(starts, offsets)

    state = np.stack([check.numbers(name, np.zeros_like(last)) for name in schema.state], axis=1)
    delta = np.zeros(state.shape, dtype=np.float32)
    delta[:-1] = state[1:] - state[:-1]
    delta[last] = 0
    if schema.num_actions is None:
        columns = [check.numbers(name, last) for name in schema.action]
        action = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
    else:
        action = torch.from_numpy(check.discrete(schema.action[0], schema.num_actions, last))
    ended = np.zeros(len(starts), dtype=bool)
    if schema.terminated in table.column_names:
        ended = check.flags(schema.terminated, last)[offsets[1:] - 1]
    reward = None
    if schema.reward in table.column_names:
        reward = torch.from_numpy(check.numbers(schema.reward, last).astype(np.float32))
    return Trajectories(
        schema=schema,
        agent_ids=agent_ids,
        agent=torch.from_numpy(agent[starts].astype(np.int64)),
        offsets=torch.from_numpy(offsets.astype(np.int64)),
        state=torch.from_numpy(state.astype(np.float32)),
        action=action,
        delta=torch.from_numpy(delta),
        terminated=torch.from_numpy(ended),
        reward=reward,
        time=None if clock is None else torch.from_numpy(clock[order]),
    )


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
    return free_name("clock", (*roles, *schema.state, *schema.action))


def free_name(name: str, taken: Sequence[str]) -> str:
    """A column name that is not taken."""
    while name in taken:
        name = f"{name}_"
    return name
