"""Forecasts: predicts the states of rows to come, from each agent's last recorded row."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from persim_lightning.adaptation.intervals import Calibration, floored_spread
from persim_lightning.api.inputs import check_level
from persim_lightning.data.tables.actions import clean_actions, encode_columns
from persim_lightning.data.tables.arrow import plain_types, set_column
from persim_lightning.data.tables.canonical import unused_name
from persim_lightning.data.tables.checks import check_rows
from persim_lightning.data.tables.events import spread_events
from persim_lightning.data.tables.filling import fill_actions
from persim_lightning.data.tables.times import clock_times, row_times
from persim_lightning.data.tables.user import canonical_column, fitted_columns
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError, TableError
from persim_lightning.evaluation.filtering import PaddedRows, filter_rows
from persim_lightning.evaluation.intervals import believed_factors
from persim_lightning.models.population import FittedPopulation

# Base steps after the last recorded row above which a time must be a mistake.
_LONGEST = 10_000
# Agents that are forecast at once.
_PART = 1024


class _Starts(NamedTuple):
    """Last recorded rows of B agents.

    Attributes
    ----------
    state : Tensor, shape (B, D)
    time : ndarray, shape (B,), float64
        In the unit of the table's clock.
    action : Tensor, shape (B,) int64 or (B, A)
        -1 or NaN where it is not known.
    """

    state: Tensor
    time: np.ndarray
    action: Tensor


def forecast_rows(
    population: FittedPopulation,
    recorded: Trajectories,
    calibration: Calibration | None,
    future: pa.Table,
    source: str,
    level: float | None,
) -> pa.Table:
    """Predict the states of future rows.

    Parameters
    ----------
    population : FittedPopulation
    recorded : Trajectories
        Recorded trajectories of its agents, with filtered states.
    calibration : Calibration or None
    future : pyarrow.Table
        Rows to come: agent, time, actions and inputs; other columns are ignored.
    source : str
        Name of the table in error messages.
    level : float or None
        Level of intervals; None for no intervals.

    Returns
    -------
    pyarrow.Table
        Agent and time as in `future`, states, and the ends of their intervals `_low` and `_high`, in the order of
        `future`.

    Raises
    ------
    PersimError
        If a column is missing, an agent is unknown, a time is not after the agent's last recorded row, or an action is
        empty.
    """
    check_level(calibration, level)
    schema = population.schema
    columns = fitted_columns(schema, ())
    names = [schema.agent, schema.time, *columns.acting]
    missing = [name for name in names if name not in future.column_names]
    if missing:
        have = ", ".join(future.column_names)
        raise TableError(f"{source}: missing column(s) {', '.join(missing)}; the table has {have}")
    asked = plain_types(future.select(names))
    for name in names:
        asked = set_column(asked, name, canonical_column(asked[name], name, columns, source))
    asked = clean_actions(asked, columns, source)
    seconds = row_times(asked[schema.time], schema.time, source)
    asked = fill_actions(asked, columns, schema.events, source, seconds)
    ids = asked[schema.agent].to_pylist()
    agent = _agent_indices(population, ids, source)
    order = np.lexsort((seconds, agent))
    final = np.zeros(len(order), dtype=bool)
    final[order] = np.r_[np.diff(agent[order]) != 0, True]
    distinct, latest = np.unique(agent), _latest_trajectories(recorded)
    # Where no last action is recorded, that of the first future row acts from the last recorded row on.
    unknown = _unknown_last_actions(population, recorded, latest)
    first = order[np.r_[True, np.diff(agent[order]) != 0]]
    final[first[unknown[agent[first]]]] = False
    action = _encoded_actions(population, asked, source, final, ids)
    mean, width = np.empty((len(ids), schema.state_dim)), np.zeros((len(ids), schema.state_dim))
    for part in np.array_split(distinct, math.ceil(len(distinct) / _PART)):
        bounds = np.searchsorted(agent[order], part[0]), np.searchsorted(agent[order], part[-1], side="right")
        rows = order[slice(*bounds)]
        starts = _starts(population, recorded, latest, part)
        before = np.searchsorted(part, agent[rows])
        times = clock_times(seconds[rows], schema.calendar)
        early = times <= starts.time[before]
        bad = np.zeros(len(ids), dtype=bool)
        bad[rows[early]] = True
        owners = ids, np.arange(len(ids))
        check_rows(source, schema.time, bad, "not after the agent's last recorded row", None, owners)
        if schema.step:
            bad[rows] = (times - starts.time[before]) / schema.step > _LONGEST
            problem = f"more than {_LONGEST} base steps ({schema.step:g} each) after the agent's last recorded row"
            check_rows(source, schema.time, bad, problem, None, owners)
        joined = _joined(population, starts, part, before, times, action[rows])
        predicted = predict_rows(population, recorded, calibration, joined, level)
        mean[rows], width[rows] = predicted.members.mean(0).double().numpy(), predicted.width
    result = {schema.agent: future[schema.agent], schema.time: future[schema.time]}
    result |= {name: pa.array(mean[:, column]) for column, name in enumerate(schema.state)}
    if level is not None:
        limits = schema.limits or ((-math.inf, math.inf),) * schema.state_dim
        for column, (name, bounds) in enumerate(zip(schema.state, limits, strict=True)):
            for end, sign in (("low", -1), ("high", 1)):
                label = unused_name(f"{name}_{end}", tuple(result))
                result[label] = pa.array(np.clip(mean[:, column] + sign * width[:, column], *bounds))
    return pa.table(result)


def _agent_indices(population: FittedPopulation, ids: list[int | str], source: str) -> np.ndarray:
    """Indices (T,) of agents in the population."""
    known = {label: index for index, label in enumerate(population.agent_ids)}
    index = np.array([known.get(label, -1) for label in ids])
    unknown = index < 0
    if unknown.any():
        label = ids[int(unknown.argmax())]
        check_rows(source, population.schema.agent, unknown, f"unknown agent {label!r}; give its rows as history")
    return index


def _encoded_actions(
    population: FittedPopulation,
    asked: pa.Table,
    source: str,
    final: np.ndarray,
    ids: list[int | str],
) -> Tensor:
    """Encode the actions of future rows, (T,) or (T, A); those of an agent's final row act on nothing that is asked."""
    schema = population.schema
    if not schema.action:
        return torch.zeros(asked.num_rows, dtype=torch.int64)
    for name in schema.events:
        asked = set_column(asked, name, asked[name].fill_null(0.0))
    encoded = encode_columns(asked, schema.user_actions, source, final)
    values = []
    for name, column in encoded.items():
        array = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
        bad = ~np.isfinite(array) & ~final
        check_rows(source, name, bad, "empty, NaN or infinite", None, (ids, np.arange(len(array))))
        values.append(np.nan_to_num(array))
    if schema.num_actions is not None:
        return torch.from_numpy(values[0].astype(np.int64))
    return torch.from_numpy(np.stack(values, axis=1).astype(np.float32))


def _latest_trajectories(recorded: Trajectories) -> dict[int | str, int]:
    """Number of every agent's latest trajectory: the one that ends last, or the last one if times overlap."""
    times, offsets = recorded.row_time().numpy(), recorded.offsets.numpy()
    starts, ends = times[offsets[:-1]], times[offsets[1:] - 1]
    latest: dict[int, int] = {}
    overlapping = set()
    for number in np.argsort(starts, kind="stable").tolist():
        owner = int(recorded.agent[number])
        if owner in latest and starts[number] <= ends[latest[owner]]:
            overlapping.add(owner)
        latest[owner] = number
    if overlapping:
        latest |= {owner: number for number, owner in enumerate(recorded.agent.tolist()) if owner in overlapping}
    return {recorded.agent_ids[owner]: number for owner, number in latest.items()}


def _unknown_last_actions(
    population: FittedPopulation, recorded: Trajectories, latest: dict[int | str, int]
) -> np.ndarray:
    """Agents (N,) of the population whose last recorded action, events aside, is empty."""
    schema = population.schema
    coordinates = [index for index, name in enumerate(schema.action) if name not in schema.events]
    unknown = np.zeros(len(population.agent_ids), dtype=bool)
    if not coordinates:
        return unknown
    place = population.index(list(latest)).numpy()
    if recorded.final_action is None:
        unknown[place] = True
        return unknown
    final = recorded.final_action[list(latest.values())]
    unknown[place] = ((final < 0) if final.ndim == 1 else final[:, coordinates].isnan().any(1)).numpy()
    return unknown


def _starts(
    population: FittedPopulation, recorded: Trajectories, latest: dict[int | str, int], agents: np.ndarray
) -> _Starts:
    """Find the last recorded rows of agents, given by their indices in the population."""
    labels = [population.agent_ids[agent] for agent in agents]
    absent = [label for label in labels if label not in latest]
    if absent:
        raise ConfigurationError(f"agent {absent[0]}: it has no recorded rows to start from; give its rows as history")
    numbers = torch.tensor([latest[label] for label in labels])
    last = recorded.offsets[1:][numbers] - 1
    time = clock_times(recorded.row_time()[last].numpy(), population.schema.calendar)
    if recorded.final_action is not None:
        action = recorded.final_action[numbers]
    else:
        action = torch.full_like(recorded.action[last], -1 if recorded.action.ndim == 1 else torch.nan)
    return _Starts(recorded.state[last], time, action)


def _joined(
    population: FittedPopulation,
    starts: _Starts,
    agents: np.ndarray,
    place: np.ndarray,
    times: np.ndarray,
    action: Tensor,
) -> Trajectories:
    """Trajectories of the last recorded rows (B,) and the future rows (T,), which are sorted by agent and time."""
    schema = population.schema
    counts = np.bincount(place, minlength=len(agents))
    offsets = np.r_[0, np.cumsum(counts + 1)]
    first, later = offsets[:-1], np.arange(len(place)) + place + 1
    rows = offsets[-1]
    clock = np.empty(rows)
    clock[first], clock[later] = starts.time, times
    duration = np.r_[np.diff(clock) / schema.step if schema.step else np.ones(rows - 1), 0.0]
    duration[offsets[1:] - 1] = 0.0
    acts = action.new_zeros(rows, *action.shape[1:])
    acts[later] = action
    known = starts.action >= 0 if action.ndim == 1 else ~starts.action.isnan()
    # What acts from the last recorded row on, or what the first future row says.
    acts[first] = torch.where(known, starts.action.to(action.dtype).nan_to_num(), acts[first + 1])
    events = [schema.action.index(name) for name in schema.events]
    if events:
        acts[np.ix_(first, events)] = starts.action[:, events].nan_to_num()
    observed = torch.zeros(rows, schema.state_dim, dtype=torch.bool)
    observed[first] = True
    state = torch.zeros(rows, schema.state_dim, dtype=schema.state_dtype)
    state[first] = starts.state
    joined = Trajectories(
        schema=schema,
        agent_ids=tuple(population.agent_ids[agent] for agent in agents),
        agent=torch.arange(len(agents)),
        offsets=torch.from_numpy(offsets),
        state=state,
        action=acts,
        delta=torch.zeros_like(state),
        terminated=torch.zeros(len(agents), dtype=torch.bool),
        observed=observed,
        duration=torch.from_numpy(duration.astype(np.float32)),
    )
    return spread_events(joined, events)


class PredictedRows(NamedTuple):
    """Predictions of T rows.

    Attributes
    ----------
    members : Tensor, shape (M, T, D)
    width : ndarray, shape (T, D)
        Half widths of intervals; zero without a level.
    elapsed : ndarray, shape (T,)
        Base steps since the first row of the trajectory.
    """

    members: Tensor
    width: np.ndarray
    elapsed: np.ndarray


def predict_rows(
    population: FittedPopulation,
    recorded: Trajectories,
    calibration: Calibration | None,
    joined: Trajectories,
    level: float | None,
) -> PredictedRows:
    """Predict the rows (T,) of trajectories after their first ones, which alone are known.

    Inserted rows are left out.
    """
    simulator, rows = population.simulator, PaddedRows.of(joined, torch.arange(joined.num_trajectories))
    agents = population.index(joined.agent_ids)
    future = joined.in_table()
    future[joined.offsets[:-1]] = False
    step = (torch.arange(len(joined.state)) - joined.offsets[:-1].repeat_interleave(joined.lengths))[future]
    number = torch.arange(joined.num_trajectories).repeat_interleave(joined.lengths)[future]
    factors = simulator.agent_encoder(agents.expand(simulator.members, -1))
    members = filter_rows(simulator, factors, rows)[:, number, step]
    elapsed = torch.cat((torch.zeros(len(rows.row), 1), rows.duration.cumsum(1)[:, :-1]), dim=1)[number, step]
    if level is None or calibration is None:
        return PredictedRows(members, np.zeros(members.shape[1:]), elapsed.numpy())
    drawn = believed_factors(population, recorded, agents)
    repeated = PaddedRows(*(value.repeat(drawn.shape[1], *[1] * (value.ndim - 1)) for value in rows))
    many = filter_rows(simulator, drawn.flatten(1, 2).to(simulator.delta_rms), repeated)
    spread = floored_spread(many.unflatten(1, drawn.shape[1:3]).flatten(0, 1), simulator.delta_rms)[number, step]
    width = calibration.half_width_after(spread, elapsed, level).double().numpy()
    return PredictedRows(members, width, elapsed.numpy())
