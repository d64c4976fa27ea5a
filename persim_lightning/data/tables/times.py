"""Reads the times of a user's table, and counts the steps of its trajectories."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.tables.checks import check_rows, check_type, is_number
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import TableError

# Largest deviation of a time difference from the step, as a share of the step.
_TOLERANCE = 1e-3


class Steps(NamedTuple):
    """Position of every row of a table within its trajectory.

    Attributes
    ----------
    length : float or None
        Time between consecutive rows; None if every row is one step, whatever the times are.
    time : ndarray, shape (R,), int64
        Number of the step.
    episode : ndarray, shape (R,), int64, or None
        Number of the trajectory; None if every agent has only one.
    last : ndarray, shape (R,), bool
        Whether the row is the last one of its trajectory.
    """

    length: float | None
    time: np.ndarray
    episode: np.ndarray | None
    last: np.ndarray


def row_times(column: pa.ChunkedArray, name: str, source: str) -> np.ndarray:
    """Times as float64: numbers unchanged, dates and timestamps in seconds.

    Raises
    ------
    TableError
        If a time is empty, not finite, or neither a number nor a date.
    """
    check_rows(source, name, pc.is_null(column).to_numpy(), "empty time")
    if pa.types.is_string(column.type):
        try:
            column = column.cast(pa.timestamp("us"))
        except pa.ArrowInvalid as error:
            raise TableError(f"{source}: column '{name}' contains text that is not a date ({error})") from error
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    check_type(source, name, column.type, is_number(column.type), "numbers or dates")
    times: np.ndarray = column.cast(pa.float64()).to_numpy()
    check_rows(source, name, ~np.isfinite(times), "not a finite time")
    return times


def count_steps(table: pa.Table, columns: TableColumns, source: str, time: np.ndarray) -> Steps:
    """Divide the rows of a table into trajectories, and count their steps.

    Parameters
    ----------
    table : pyarrow.Table
    columns : TableColumns
    source : str
        Name of the table in error messages.
    time : ndarray, shape (R,), float64
        Time of every row, from :func:`row_times`.

    Raises
    ------
    TableError
        If an id is empty, an agent has two rows with the same time, or rows are missing and `columns.gaps` is 'error'.
    """
    agents = table[columns.agent].combine_chunks().dictionary_encode()
    check_rows(source, columns.agent, pc.is_null(agents).to_numpy(zero_copy_only=False), "empty agent id")
    agent, ids = agents.indices.to_numpy(), agents.dictionary.to_pylist()
    episode = np.zeros(len(time), dtype=np.int64)
    if columns.episode is not None:
        episodes = table[columns.episode].combine_chunks().dictionary_encode()
        empty = pc.is_null(episodes).to_numpy(zero_copy_only=False)
        check_rows(source, columns.episode, empty, "empty", None, (ids, agent))
        episode = episodes.indices.to_numpy().astype(np.int64)
    # From here to `starts`, everything is in sorted order; entry i compares sorted rows i and i+1.
    order = np.lexsort((time, episode, agent))
    continues = (np.diff(agent[order]) == 0) & (np.diff(episode[order]) == 0)
    difference = np.diff(time[order])
    duplicate = np.r_[False, continues & (difference == 0)]
    check_rows(source, columns.time, duplicate, "the agent has two rows with this time", order, (ids, agent))
    if columns.step == "row" or not continues.any():
        length, gap = None, np.zeros(len(difference), dtype=bool)
    else:
        length = float(columns.step or _most_common(difference[continues]))
        gap = continues & (np.abs(difference / length - 1) > _TOLERANCE)
    if gap.any() and columns.gaps == "error":
        first = np.flatnonzero(gap)[0]
        before, after = (table[columns.time][int(order[first + side])].as_py() for side in (0, 1))
        problem = (
            f"{after} follows {before}, but the step between rows is {length:g}; fix the table, or set gaps: split or "
            "step: row"
        )
        check_rows(source, columns.time, np.r_[False, gap], problem, order, (ids, agent))
    starts = np.r_[True, ~continues | gap]
    trajectory = np.cumsum(starts) - 1
    step, number = np.empty(len(time), dtype=np.int64), np.empty(len(time), dtype=np.int64)
    last = np.empty(len(time), dtype=bool)
    step[order] = np.arange(len(time)) - np.flatnonzero(starts)[trajectory]
    number[order] = trajectory
    last[order] = np.r_[starts[1:], True]
    has_several = columns.episode is not None or bool(gap.any())
    return Steps(length, step, number if has_several else None, last)


def _most_common(differences: np.ndarray) -> float:
    """The most common time difference; numbers that differ only by rounding count as equal."""
    rounded = np.array([float(f"{value:.6g}") for value in np.unique(differences)])
    values, inverse = np.unique(rounded, return_inverse=True)
    counts = np.bincount(inverse, weights=np.unique(differences, return_counts=True)[1])
    return float(values[counts.argmax()])
