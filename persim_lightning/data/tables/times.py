"""Times of a user's table, and the steps that they are counted in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.tables.checks import fail_at, is_number
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import TableError

# Times may lie this share of a step off.
_TOLERANCE = 1e-3


def count_steps(
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
