"""Event columns: actions such as doses, whose effect does not depend on the time to the next row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from persim_lightning.data.tables.checks import is_number
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.trajectories import Trajectories

# Share of measured rows without a value, or with zero, from which a column of an uneven table counts as events.
_EVENT_SHARE = 0.5


def find_events(table: pa.Table, columns: TableColumns, uneven: bool) -> tuple[str, ...]:
    """Find the numeric action and input columns whose values are events.

    In a table whose rows are not evenly spaced, a column counts as events if it is empty or zero in at least half of
    the rows with a state; in any table, if some rows have a value of the column and no state, and others a state and an
    empty cell.

    Parameters
    ----------
    table : pyarrow.Table
    columns : TableColumns
    uneven : bool
        Whether rows are not all one base step apart.
    """
    if columns.events is not None:
        return tuple(columns.events)
    measured = np.zeros(table.num_rows, dtype=bool)
    for name in columns.state:
        measured |= pc.is_valid(table[name]).to_numpy()
    events = []
    for name in columns.acting:
        if not is_number(table[name].type) or name in columns.categorical:
            continue
        values = table[name].cast(pa.float64(), safe=False).fill_null(0.0).to_numpy()
        empty = pc.is_null(table[name]).to_numpy()
        acts = ~np.isnan(values) & (values != 0)
        alone = bool((acts & ~measured).any()) and bool((empty & measured).any())
        if alone or (uneven and measured.any() and 1 - acts[measured].mean() >= _EVENT_SHARE):
            events.append(name)
    return tuple(events)


def spread_events(trajectories: Trajectories, coordinates: list[int]) -> Trajectories:
    """Let the values of event coordinates act for one base step, whatever the time to the next row.

    The value in a row becomes the sum of all events in the base step before it. Where an event ends between two rows,
    a row without a measurement is inserted. The rows of an evenly spaced table stay as they are.

    Parameters
    ----------
    trajectories : Trajectories
    coordinates : list of int
        Coordinates of continuous actions.
    """
    if trajectories.duration is None or not coordinates:
        return trajectories
    parts = [_spread(trajectories, number, coordinates) for number in range(trajectories.num_trajectories)]
    sources, new, acting, spans, _ = zip(*parts, strict=True)
    lengths = torch.tensor([len(part) for part in sources])
    source, inserted = torch.from_numpy(np.concatenate(sources)), torch.from_numpy(np.concatenate(new))
    action = trajectories.action[source]
    action[:, coordinates] = torch.from_numpy(np.concatenate(acting).astype(np.float32))
    observed = trajectories.observed_mask()[source] & ~inserted[:, None]
    final = trajectories.final_action
    if final is not None:
        # What is left of earlier events acts from the last row on, beside the events in it.
        final = final.clone()
        rest = torch.from_numpy(np.stack([left for *_, left in parts]).astype(np.float32))
        final[:, coordinates] = final[:, coordinates].nan_to_num() + rest
    return replace(
        trajectories,
        final_action=final,
        offsets=torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))),
        state=trajectories.state[source],
        action=action,
        delta=torch.zeros_like(trajectories.state[source]),
        observed=observed,
        duration=torch.from_numpy(np.concatenate(spans).astype(np.float32)),
        inserted=inserted,
        reward=None if trajectories.reward is None else torch.where(inserted, 0, trajectories.reward[source]),
        # Inserted rows get the time of the row before them; no measurement refers to it.
        time=None if trajectories.time is None else trajectories.time[source],
    )


def own_events(trajectory: Trajectories, coordinates: list[int]) -> Trajectories:
    """Undo :func:`spread_events` for a single trajectory, whose inserted rows stay with values of zero."""
    if trajectory.duration is None or not coordinates:
        return trajectory
    times = np.r_[0.0, np.cumsum(trajectory.duration[:-1].double().numpy())]
    spread = trajectory.action[:, coordinates].double().numpy()
    own = np.zeros_like(spread)
    first = np.searchsorted(times, times - 1.0 + 1e-6, side="right")
    for row in range(len(own)):
        own[row] = spread[row] - own[first[row] : row].sum(0)
    # Rounding leaves crumbs where nothing happened.
    own[np.abs(own) < 1e-5 * np.abs(spread).max(initial=1e-30)] = 0.0
    action = trajectory.action.clone()
    action[:, coordinates] = torch.from_numpy(own.astype(np.float32))
    return replace(trajectory, action=action)


def _spread(
    trajectories: Trajectories, number: int, coordinates: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spread the events of one trajectory.

    Returns source rows, which rows are inserted, values of events, durations, and what is left of events at the end.
    """
    start, end = trajectories.offsets[number : number + 2].tolist()
    assert trajectories.duration is not None
    times = np.r_[0.0, np.cumsum(trajectories.duration[start : end - 1].double().numpy())]
    values = trajectories.action[start:end, coordinates].double().numpy()
    # The last row acts on nothing recorded.
    values[-1] = 0.0
    happens = times[(values != 0).any(1)]
    ends = happens + 1.0
    # Ends within rounding of a row need no row of their own.
    after = np.searchsorted(times, ends).clip(1, len(times) - 1) if len(times) > 1 else np.zeros(len(ends), dtype=int)
    near = np.minimum(np.abs(ends - times[after]), np.abs(ends - times[after - 1])) < 1e-6
    new = np.unique(ends[~near & (ends < times[-1])].round(9))
    every = np.r_[times, new]
    order = np.argsort(every, kind="stable")
    every = every[order]
    inserted = (np.arange(len(order)) >= len(times))[order]
    source = np.maximum.accumulate(np.where(inserted, 0, order))
    total = np.concatenate((np.zeros((1, values.shape[1])), values.cumsum(0)))
    begun = np.searchsorted(times, every + 1e-9, side="right")
    over = np.searchsorted(times, every - 1.0 + 1e-6, side="right")
    acting = total[begun] - total[over]
    # Differences of sums leave crumbs where nothing acts.
    acting[np.abs(acting) < 1e-9 * np.abs(values).max(initial=1.0)] = 0.0
    spans = np.r_[np.diff(every), 0.0]
    left = (1.0 - (times[-1] - times)).clip(0.0, 1.0) @ values
    return source + start, inserted, acting, spans, left
