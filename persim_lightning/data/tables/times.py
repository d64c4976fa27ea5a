"""Reads the times of a user's table, and divides it into trajectories."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.tables.checks import RowAgents, check_rows, check_type, is_number, row_agents
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import TableError

# Largest deviation of a duration from a whole number of base steps that counts as rounding.
_TOLERANCE = 1e-3
# A time difference that this share of a table's differences have is its base step.
_REGULAR_SHARE = 0.5
# The base step of an irregular table is at least this share of its largest differences, which bounds sub-steps.
_LARGEST_SHARE = 1 / 8
# Largest difference, in medians, up to which times are jittered around a step, and up to which one sub-step suffices.
_JITTERED, _NARROW = 1.5, 2.0
# Base steps between rows, or their inverse, above which a given step must be a mistake.
_FARTHEST = 1000.0
# A gap of more base steps is not learned from: a new trajectory starts after it.
MAX_DURATION = 16.0


def _parsed_dates(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Parse texts as numbers, ISO dates with or without a time zone, or dates such as 31.12.2024 and 2024-12."""
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        with contextlib.suppress(pa.ArrowInvalid):
            return column.cast(kind)
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.strptime(column, format="%Y-%m", unit="us")
    try:
        return pc.strptime(column, format="%d.%m.%Y", unit="us")
    except pa.ArrowInvalid as error:
        raise TableError(f"{source}: column '{name}' contains text that is not a date ({error})") from error


class Clock(NamedTuple):
    """Times of a table's rows in one unit.

    Attributes
    ----------
    time : ndarray, shape (R,), float64
        Times as numbers: seconds, months or business days for dates, the user's unit otherwise.
    calendar : str
        As in :class:`~persim_lightning.types.Schema`.
    """

    time: np.ndarray
    calendar: str


class Steps(NamedTuple):
    """Position of every row of a table within its trajectory.

    Attributes
    ----------
    length : float or None
        Base step in the unit of the clock; None if every row is one step, whatever the times are.
    time : ndarray, shape (R,), int64
        Number of the row in its trajectory.
    episode : ndarray, shape (R,), int64, or None
        Number of the trajectory; None if every agent has only one.
    last : ndarray, shape (R,), bool
        Whether the row is the last one of its trajectory.
    duration : ndarray, shape (R,), float32, or None
        Base steps from the row to the next one of its trajectory, 0 in last rows; None if all are 1.
    last_recorded : ndarray, shape (R,), bool
        Whether no row of the same agent and episode follows. Other last rows precede a gap.
    """

    length: float | None
    time: np.ndarray
    episode: np.ndarray | None
    last: np.ndarray
    duration: np.ndarray | None
    last_recorded: np.ndarray


def row_times(column: pa.ChunkedArray, name: str, source: str) -> np.ndarray:
    """Times as float64: numbers unchanged, dates and timestamps in seconds.

    Raises
    ------
    TableError
        If a time is empty, not finite, or neither a number nor a date.
    """
    check_rows(source, name, pc.is_null(column).to_numpy(), "empty time")
    if pa.types.is_string(column.type):
        column = _parsed_dates(column, name, source)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if pa.types.is_duration(column.type):
        return column.cast(pa.duration("us"), safe=False).cast(pa.int64()).to_numpy() / 1e6
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy() / 1e6
    check_type(source, name, column.type, is_number(column.type), "numbers or dates")
    times: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy()
    check_rows(source, name, ~np.isfinite(times), "not a finite time")
    return times


def calendar_clock(column: pa.ChunkedArray, seconds: np.ndarray, calendar: str | None = None) -> Clock:
    """Choose the unit in which dates are evenly spaced: months or business days where they fit, seconds otherwise.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Times as in the user's table.
    seconds : ndarray, shape (R,), float64
        Result of :func:`row_times`.
    calendar : str, optional
        Calendar of a fitted table; chosen by default.
    """
    if not _contains_dates(column):
        return Clock(seconds, "")
    if calendar is None:
        calendar = _fitting_calendar((seconds * 1e6).round().astype("datetime64[us]"))
    return Clock(clock_times(seconds, calendar), calendar)


def _contains_dates(column: pa.ChunkedArray) -> bool:
    """Whether times are dates, rather than numbers, numbers as text, or durations."""
    if not pa.types.is_string(column.type):
        return bool(pa.types.is_date(column.type) or pa.types.is_timestamp(column.type))
    try:
        column.cast(pa.float64())
    except pa.ArrowInvalid:
        return True
    return False


def clock_times(seconds: np.ndarray, calendar: str) -> np.ndarray:
    """Convert times from :func:`row_times` to the unit of a calendar."""
    if not calendar:
        return seconds
    dates = (seconds * 1e6).round().astype("datetime64[us]")
    if calendar == "month":
        return _months(dates)
    if calendar == "month end":
        return _months(dates + np.timedelta64(1, "D"))
    days: np.ndarray = np.busday_count("1970-01-01", dates.astype("datetime64[D]")).astype(np.float64)
    return days


def _fitting_calendar(dates: np.ndarray) -> str:
    """Return the calendar of dates at midnight that are all first or last days of months, or all business days."""
    days = dates.astype("datetime64[D]")
    if len(days) < 2 or (dates != days).any():
        return ""
    if len(np.unique(days.astype("datetime64[M]"))) > 1:
        if (days == days.astype("datetime64[M]")).all():
            return "month"
        following = days + 1
        if (following == following.astype("datetime64[M]")).all():
            return "month end"
    distinct = np.unique(days)
    difference = np.diff(distinct).astype(np.int64)
    weekdays = bool(np.is_busday(distinct).all())
    if weekdays and len(difference) and (difference == 1).mean() > _REGULAR_SHARE and (difference == 3).any():
        return "business day"
    return ""


def _months(dates: np.ndarray) -> np.ndarray:
    """Months since 1970, with the share of the month that has passed."""
    month = dates.astype("datetime64[M]")
    start, end = (value.astype("datetime64[us]") for value in (month, month + 1))
    return month.astype(np.int64) + (dates - start) / (end - start)


def sort_rows(
    table: pa.Table, columns: TableColumns, source: str, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray, RowAgents]:
    """Sort the rows of a table by agent, episode and time.

    Returns
    -------
    order : ndarray, shape (R,), int64
    continues : ndarray, shape (R-1,), bool
        Whether a sorted row belongs to the trajectory of the row before it.
    agents : RowAgents

    Raises
    ------
    TableError
        If an id is empty.
    """
    check_rows(source, columns.agent, pc.is_null(table[columns.agent]).to_numpy(), "empty agent id")
    ids, agent = row_agents(table[columns.agent])
    episode = np.zeros(len(time), dtype=np.int64)
    if columns.episode is not None:
        episodes = table[columns.episode].combine_chunks().dictionary_encode()
        empty = pc.is_null(episodes).to_numpy(zero_copy_only=False)
        check_rows(source, columns.episode, empty, "empty", None, (ids, agent))
        episode = episodes.indices.to_numpy().astype(np.int64)
    order = np.lexsort((time, episode, agent))
    continues = (np.diff(agent[order]) == 0) & (np.diff(episode[order]) == 0)
    return order, continues, (ids, agent)


def count_steps(
    table: pa.Table,
    columns: TableColumns,
    source: str,
    time: np.ndarray,
    cut: np.ndarray | None = None,
    max_duration: float = MAX_DURATION,
) -> Steps:
    """Divide the rows of a table into trajectories, and count base steps between rows.

    Parameters
    ----------
    table : pyarrow.Table
        Without two rows of an agent at one time, see :mod:`~persim_lightning.data.tables.simultaneous`.
    columns : TableColumns
    source : str
        Name of the table in error messages.
    time : ndarray, shape (R,), float64
        Time of every row, from :func:`calendar_clock`.
    cut : ndarray, shape (R,), bool, optional
        Rows whose step to the next row cannot be used, after which a new trajectory starts.
    max_duration : float
        Base steps above which a new trajectory starts, if `columns.gaps` is 'keep'.

    Raises
    ------
    TableError
        If an id is empty, the given step is far from the time between rows, or rows are not one step apart and
        `columns.gaps` is 'error'.
    """
    order, continues, agents = sort_rows(table, columns, source, time)
    difference = np.diff(time[order])
    if columns.step == "row" or not continues.any():
        length, duration = None, np.ones(len(difference))
    else:
        length = float(columns.step or base_step(difference[continues]))
        duration = difference / length
        usual = float(np.median(difference[continues]))
        if not 1 / _FARTHEST <= usual / length <= _FARTHEST:
            raise TableError(f"{source}: step {length:g} does not fit rows that are usually {usual:g} apart")
        whole = np.maximum(duration.round(), 1.0)
        duration = np.where(np.abs(duration - whole) <= _TOLERANCE * whole, whole, duration)
    gap = continues & (duration != 1)
    if gap.any() and columns.gaps == "error":
        first = np.flatnonzero(gap)[0]
        before, after = (table[columns.time][int(order[first + side])].as_py() for side in (0, 1))
        problem = f"{after} follows {before}, but the step between rows is {length:g} (gaps: error)"
        check_rows(source, columns.time, np.r_[False, gap], problem, order, agents)
    if columns.gaps == "keep":
        gap = continues & (duration > max_duration)
    if cut is not None:
        gap |= continues & cut[order][:-1]
    starts = np.r_[True, ~continues | gap]
    trajectory = np.cumsum(starts) - 1
    rows = len(time)
    step, number, last = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64), np.empty(rows, dtype=bool)
    step[order] = np.arange(rows) - np.flatnonzero(starts)[trajectory]
    number[order] = trajectory
    ends = np.r_[starts[1:], True]
    last[order] = ends
    has_several = columns.episode is not None or bool(gap.any())
    uneven = bool((duration[~ends[:-1]] != 1).any())
    spans = np.zeros(rows, dtype=np.float32)
    spans[order] = np.where(ends, 0.0, np.r_[duration, 0.0])
    recorded = np.zeros(rows, dtype=bool)
    recorded[order] = np.r_[~continues, True]
    return Steps(length, step, number if has_several else None, last, spans if uneven else None, recorded)


def is_uneven(table: pa.Table, columns: TableColumns, source: str, time: np.ndarray) -> bool:
    """Whether the rows of trajectories are not all equally far apart in time; simultaneous rows do not count."""
    if columns.step == "row":
        return False
    order, continues, _ = sort_rows(table, columns, source, time)
    difference = np.diff(time[order])[continues]
    difference = difference[difference > 0]
    return len(difference) > 0 and bool((np.abs(difference / difference[0] - 1) > _TOLERANCE).any())


def base_step(differences: np.ndarray) -> float:
    """Choose the base step from positive time differences.

    The most common difference of a regular table, which may have gaps, and the median of a jittered one. In other
    irregular tables the largest differences, so that a step between rows needs one sub-step; if those are more than
    twice the median, the median, or an eighth of the largest if that is longer, so that no step needs many sub-steps.
    """
    rounded = np.array([float(f"{value:.6g}") for value in np.unique(differences)])
    values, inverse = np.unique(rounded, return_inverse=True)
    counts = np.bincount(inverse, weights=np.unique(differences, return_counts=True)[1])
    if counts.max() >= _REGULAR_SHARE * len(differences):
        return float(values[counts.argmax()])
    median, largest = np.median(differences), np.quantile(differences, 0.99)
    if _JITTERED * median < largest <= _NARROW * median:
        return float(largest)
    return float(max(median, _LARGEST_SHARE * largest))
