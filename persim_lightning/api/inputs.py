"""Converts states, actions and recorded times given by users to arrays."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.data.tables.actions import encode_actions
from persim_lightning.data.tables.sources import as_table
from persim_lightning.data.tables.times import row_times
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError
from persim_lightning.types import Schema

# State by column, or array of shape (D,).
State = Mapping[str, float] | Sequence[float] | np.ndarray
# Times that differ by less than this share of a step are equal.
_SAME_TIME = 1e-3


def check_positive(**values: int) -> None:
    """Refuse values that are not positive integers.

    Raises
    ------
    ConfigurationError
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise ConfigurationError(f"{name} {value!r} must be a positive integer")


def check_level(calibration: Calibration | None, level: float | None) -> None:
    """Refuse a level of intervals that are not calibrated; None asks for no intervals.

    Raises
    ------
    ConfigurationError
    """
    if level is None:
        return
    if calibration is None:
        raise ConfigurationError(
            "intervals need held-out tails of trajectories, which this simulator was fitted without"
        )
    calibration.check(level)


def state_array(state: State, schema: Schema) -> np.ndarray:
    """Convert a state to an array of shape (D,), of the schema's type.

    Raises
    ------
    ConfigurationError
        If a column is missing, a value is not finite, or the shape is wrong.
    """
    if not isinstance(state, Mapping) and hasattr(state, "to_dict"):
        # A pandas Series goes by its names, not by its order.
        state = state.to_dict()
    if isinstance(state, Mapping):
        state = {str(name): value for name, value in state.items()}
        missing = [name for name in schema.state if name not in state]
        if missing:
            raise ConfigurationError(f"state: '{missing[0]}' is missing; give {', '.join(schema.state)}")
        state = [state[name] for name in schema.state]
    try:
        values = np.asarray(state, dtype=np.float64 if schema.double else np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigurationError("state: every value must be a finite number") from error
    if values.shape != (schema.state_dim,):
        expected = ", ".join(schema.state)
        raise ConfigurationError(f"state has shape {values.shape}, but must have ({schema.state_dim},): {expected}")
    if not np.isfinite(values).all():
        raise ConfigurationError("state: every value must be a finite number")
    return values


def action_array(actions: Any, schema: Schema) -> np.ndarray:
    """Convert actions to the simulator's encoding, shape (H,) or (H, A).

    Parameters
    ----------
    actions : mapping of column to H values or a scalar, data frame, series, or array
        A series holds the values of the only column, or one step by column. An array must already be encoded; a scalar
        or a vector (A,) is one step.
    schema : Schema

    Raises
    ------
    PersimError
        If a column is missing, a category is unknown, or a value is not a finite number.
    """
    names = [column.name for column in schema.user_actions]
    if hasattr(actions, "to_frame"):
        keys = getattr(actions, "index", ())
        if all(name in keys for name in names):
            actions = {name: actions[name] for name in names}
        elif len(names) == 1:
            actions = {names[0]: actions.to_list()}
        else:
            raise ConfigurationError(f"actions: a series must hold one step of {', '.join(names)}")
    elif hasattr(actions, "__arrow_c_stream__"):
        actions = as_table(actions, "actions")[0].to_pydict()
    if isinstance(actions, Mapping):
        return encode_actions(dict(actions), schema)
    try:
        encoded = np.asarray(actions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigurationError("actions: give values by column, or an array of numbers") from error
    if not np.isfinite(encoded).all():
        raise ConfigurationError("actions: every value must be a finite number")
    if schema.num_actions is not None:
        return np.atleast_1d(encoded)
    if encoded.ndim == 2:
        return encoded
    return encoded.reshape(-1, 1) if schema.action_dim == 1 else np.atleast_2d(encoded)


def find_moment(recorded: Trajectories, agent: int | str, t: Any, episode: int) -> tuple[int, int]:
    """Find the recorded row of a time, and the last row of its trajectory.

    Parameters
    ----------
    recorded : Trajectories
    agent : int or str
    t : number, date or datetime
        A time of the table.
    episode : int
        Index among the agent's trajectories with such a row, in the table's order.

    Raises
    ------
    ConfigurationError
        If the agent has no recorded row at this time.
    """
    if agent not in recorded.agent_ids:
        raise ConfigurationError(f"agent {agent}: it has no recorded rows, only covariates")
    times = recorded.row_time()
    try:
        cell = pa.chunked_array([pa.array([t.astype("datetime64[us]") if isinstance(t, np.datetime64) else t])])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ConfigurationError(f"t: {t!r} is not a time") from error
    moment = float(row_times(cell, "t", "counterfactual")[0])
    of_agent = recorded.row_agent() == recorded.agent_ids.index(agent)
    distances = times[of_agent].sort().values.diff()
    apart = distances[distances > 0]
    tolerance = _SAME_TIME * (recorded.schema.step or (float(apart.min()) if len(apart) else 0.0))
    rows = (of_agent & recorded.in_table() & ((times - moment).abs() <= tolerance)).nonzero()[:, 0].tolist()
    if not 0 <= episode < len(rows):
        times = times[of_agent]
        raise ConfigurationError(
            f"agent {agent}: {len(rows)} recorded moment(s) at time {t}, so there is no number {episode}; its "
            f"times run from {float(times.min()):g} to {float(times.max()):g}"
        )
    row = rows[episode]
    trajectory = int(torch.searchsorted(recorded.offsets, row, right=True)) - 1
    return row, int(recorded.offsets[trajectory + 1]) - 1
