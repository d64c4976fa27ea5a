"""The canonical table of trajectories: a long table with one row per (agent, t), in Parquet or CSV.

The next state of a row is the state of the next row; the last row of a trajectory has no action. Reading checks the
whole table; errors name file, column, agent and row (counted from 0, without the header).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from persim_lightning.data.tables.reader import ColumnReader
from persim_lightning.data.tables.sources import read_table
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import TableError
from persim_lightning.types import Schema


def load_trajectories(path: Path, schema: Schema) -> Trajectories:
    """Read and validate a table of trajectories.

    Parameters
    ----------
    path : Path
        Parquet or CSV. Rows may come in any order.
    schema : Schema
        Expected columns. `episode`, `terminated` and `reward` are optional in the table.

    Raises
    ------
    TableError
        If the table is malformed; see :class:`~persim_lightning.data.tables.reader.ColumnReader`.
    """
    return trajectories_from_table(read_table(path), schema, str(path))


def load_recorded_trajectories(path: Path, schema: Schema) -> Trajectories:
    """Read a table that :func:`trajectories_table` wrote, with its additional columns.

    Raises
    ------
    TableError
        If the table is missing or malformed.
    """
    table, names = read_table(path), additional_columns(schema)
    needed = (schema.agent, schema.episode, schema.time, names["clock"])
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise TableError(f"{path}: no column '{missing[0]}'")
    # Adding agents keeps their order, but reading sorts by id.
    table = table.sort_by([(name, "ascending") for name in (schema.agent, schema.episode, schema.time)])
    given = {key: table[name].to_numpy() for key, name in names.items() if name in table.column_names}
    table = table.drop_columns([name for name in names.values() if name in table.column_names])
    trajectories = trajectories_from_table(table, schema, str(path), given["clock"], given.get("duration"))
    if "inserted" in given:
        trajectories = replace(trajectories, inserted=torch.from_numpy(given["inserted"].copy()))
    rows = [given[key] for key in names if key.startswith("covariate ") and key in given]
    if rows:
        first = np.flatnonzero(np.r_[True, np.diff(trajectories.row_agent().numpy()) != 0])
        trajectories = replace(trajectories, covariates=torch.from_numpy(np.stack(rows, axis=1)[first].astype(float)))
    return trajectories


def trajectories_from_table(
    table: pa.Table,
    schema: Schema,
    source: str,
    clock: np.ndarray | None = None,
    duration: np.ndarray | None = None,
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
    duration : ndarray, shape (R,), float32, optional
        Base steps from every row to the next one of its trajectory; 1 by default.

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
    if schema.encoded:
        state = np.stack([reader.states(name) for name in schema.state], axis=1)
    else:
        reader.check_lengths(starts, offsets)
        state = np.stack([reader.numbers(name, np.zeros_like(last)) for name in schema.state], axis=1)
    observed = None if np.isfinite(state).all() else np.isfinite(state)
    if observed is not None:
        state = carried_forward(state, starts)
    delta = np.zeros(state.shape, dtype=np.float32)
    delta[:-1] = state[1:] - state[:-1]
    delta[last] = 0
    if not schema.action:
        action = torch.zeros(len(agent), dtype=torch.int64)
    elif schema.num_actions is None:
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
        state=torch.from_numpy(state).to(schema.state_dtype),
        action=action,
        delta=torch.from_numpy(delta),
        terminated=torch.from_numpy(terminated),
        reward=reward,
        time=None if clock is None else torch.from_numpy(clock[order]),
        observed=None if observed is None else torch.from_numpy(observed),
        duration=None if duration is None else torch.from_numpy(duration[order].astype(np.float32)),
        final_action=reader.final_actions(offsets[1:] - 1) if schema.encoded and schema.action else None,
    )


def carried_forward(state: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Fill missing values (R, D) by the last observed one of the trajectory, before that by its first one.

    Coordinates that a trajectory never observes get the mean of the column. `starts` holds the first rows of
    trajectories.
    """
    missing = np.isnan(state)
    rows = np.arange(len(state))
    first = np.zeros(len(state), dtype=np.int64)
    first[starts] = starts
    first = np.maximum.accumulate(first)
    filled = state.copy()
    for column in range(state.shape[1]):
        known = ~missing[:, column]
        before = np.maximum.accumulate(np.where(known, rows, -1))
        after = np.minimum.accumulate(np.where(known, rows, len(state))[::-1])[::-1]
        last = np.r_[starts[1:], len(state)][np.searchsorted(starts, first, side="right") - 1]
        source = np.where(before >= first, before, np.where(after < last, after, -1))
        values = state[source, column]
        filled[:, column] = np.where(
            known, state[:, column], np.where(source >= 0, values, np.nanmean(state[:, column]))
        )
    return filled


def trajectories_table(trajectories: Trajectories) -> pa.Table:
    """Convert trajectories to a canonical table with :func:`additional_columns`."""
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
    hidden = ~trajectories.observed_mask().numpy()
    columns |= {
        name: pa.array(trajectories.state[:, index].numpy(), mask=hidden[:, index])
        for index, name in enumerate(schema.state)
    }
    actions = trajectories.action[:, None] if schema.num_actions is not None else trajectories.action
    empty = last
    if trajectories.final_action is not None:
        actions = actions.clone()
        final = trajectories.final_action.view(trajectories.num_trajectories, -1)
        known = (final >= 0) if schema.num_actions is not None else ~final.isnan()
        actions[trajectories.offsets[1:] - 1] = torch.where(known, final, 0)
        empty = np.repeat(last[:, None], actions.shape[1], axis=1)
        empty[last] = ~known.numpy()
    for index, name in enumerate(schema.action):
        mask = empty if empty.ndim == 1 else empty[:, index]
        columns[name] = pa.array(actions[:, index].numpy(), mask=mask)
    if trajectories.reward is not None:
        columns[schema.reward] = pa.array(trajectories.reward.numpy(), mask=last)
    columns[schema.terminated] = pa.array(last & trajectories.terminated.numpy()[trajectory])
    names = additional_columns(schema)
    for key, values in (
        ("clock", trajectories.time),
        ("duration", trajectories.duration),
        ("inserted", trajectories.inserted),
        *_covariate_rows(trajectories),
    ):
        if values is not None:
            columns[names[key]] = pa.array(values.numpy())
    return pa.table(columns)


def additional_columns(schema: Schema) -> dict[str, str]:
    """Return the columns that :func:`trajectories_table` adds, with names that differ from those of the schema.

    `clock` holds times, `duration` base steps to the next row, `inserted` marks rows that are not in the user's table,
    and `covariate 0`, … hold encoded covariates; all but `clock` are optional.
    """
    roles = (schema.agent, schema.time, schema.episode, schema.terminated, schema.reward)
    used = (*roles, *schema.state, *schema.action)
    covariates = [f"covariate {index}" for index in range(_num_covariates(schema))]
    return {name: unused_name(name, used) for name in ("clock", "duration", "inserted", *covariates)}


def _num_covariates(schema: Schema) -> int:
    """Number of encoded covariates."""
    return sum(1 if categories is None else len(categories) - 1 for _, categories in schema.covariates)


def _covariate_rows(trajectories: Trajectories) -> list[tuple[str, torch.Tensor]]:
    """Covariates of every row's agent, by name in :func:`additional_columns`."""
    if trajectories.covariates is None:
        return []
    rows = trajectories.covariates[trajectories.row_agent()]
    return [(f"covariate {index}", column) for index, column in enumerate(rows.unbind(1))]


def unused_name(name: str, used: Sequence[str]) -> str:
    """Append underscores to a column name until it is not among the used ones."""
    while name in used:
        name = f"{name}_"
    return name
