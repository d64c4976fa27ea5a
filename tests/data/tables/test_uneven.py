"""Tables as they stand: uneven times, calendars, several rows at one time, missing values, roles of columns."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.times import MAX_DURATION, base_step
from persim_lightning.data.tables.user import read_like, user_trajectories
from persim_lightning.errors import ConfigurationError, PersimWarning, TableError


def read(values, action=(), **options):
    columns = TableColumns(state=["x"], action=list(action), agent="who", time="t", **options)
    return user_trajectories(pa.table(values), columns, "mine")


def table(times, **columns):
    count = len(times)
    return {"who": ["a"] * count, "t": times, "x": np.arange(count, dtype=float), **columns}


def test_jittered_times_are_durations_of_the_usual_step():
    read_in = read(table([0.0, 5, 9, 16, 20, 25, 30]))
    assert read_in.schema.step == 5
    assert read_in.duration.tolist() == pytest.approx([1, 0.8, 1.4, 0.8, 1, 1, 0])


def test_differences_that_round_to_the_step_are_one():
    assert read(table([0.1, 0.2, 0.30000001, 0.4])).duration is None


def test_the_base_step_of_uneven_times():
    assert base_step(np.array([1.0, 1, 1, 3, 7])) == 1
    assert base_step(np.array([1.0, 2, 3, 4, 9])) == 3
    assert base_step(np.array([1.0, 2, 3, 4, 5])) == pytest.approx(5, rel=0.01)
    # Jitter around a step of 5.
    assert base_step(np.array([4.0, 4.2, 4.9, 5, 5.3, 6, 6.8])) == 5
    # An eighth of the largest differences, so that no row needs more than about eight sub-steps.
    assert base_step(np.array([1.0, 2, 3, 80])) == pytest.approx(np.quantile([1.0, 2, 3, 80], 0.99) / 8)


def test_long_gaps_start_a_new_trajectory():
    read_in = read(table([0, 1, 2, 3 + MAX_DURATION, 4 + MAX_DURATION]))
    assert read_in.lengths.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("dates", "calendar", "step"),
    [
        ([datetime.date(2023, month, 1) for month in range(1, 13)], "month", 1),
        ([datetime.date(2024, month, 1) - datetime.timedelta(1) for month in range(1, 13)], "month end", 1),
        ([datetime.date(year, 7, 1) for year in range(2000, 2008)], "month", 12),
        ([datetime.date(2024, 3, day) for day in (1, 4, 5, 6, 7, 8, 11)], "business day", 1),
    ],
)
def test_calendar_steps_are_even(dates, calendar, step):
    read_in = read(table(dates))
    assert (read_in.schema.calendar, read_in.schema.step, read_in.duration) == (calendar, step, None)
    later = read_like(read_in.schema, table([dates[-1], dates[-1] + (dates[-1] - dates[-2])]))
    assert later.num_trajectories == 1


def test_dates_with_clock_times_are_seconds():
    times = [datetime.datetime(2023, 1, 1, hour) for hour in range(4)]
    read_in = read(table(times))
    assert (read_in.schema.calendar, read_in.schema.step) == ("", 3600)


def test_rows_at_one_time_are_merged():
    values = table([0.0, 0.0, 1.0, 2.0, 2.0], dose=[3.0, None, 0.0, 1.0, 2.0])
    values["x"] = [None, 5.0, 6.0, None, 7.0]
    read_in = read(values, ["dose"], events=["dose"])
    assert read_in.state[:, 0].tolist() == [5, 6, 7]
    assert read_in.action[:2, 0].tolist() == [3, 0]
    assert read_in.final_action.tolist() == [[3.0]]
    values["x"][3] = 8.0
    with pytest.raises(TableError, match="column 'x', agent a, row 4: the agent has two rows with this time and diff"):
        read(values, ["dose"])


def test_errors_name_rows_of_the_users_table_after_rows_were_merged():
    values = table([0.0, 0.0, 1.0, 2.0], dose=[3.0, None, 0.0, 1.0])
    values["x"] = [None, 5.0, float("inf"), 7.0]
    with pytest.raises(TableError, match="column 'x', agent a, row 2: infinite"):
        read(values, ["dose"])


def test_warnings_name_rows_of_the_users_table_after_rows_were_merged():
    values = table([0.0, 0.0, 1.0, 2.0, 3.0], dial=[3.0, None, 1.0, None, 1.0])
    values["x"] = [None, 5.0, 6.0, 7.0, 8.0]
    with pytest.warns(PersimWarning, match="column 'dial', agent a, row 3: empty, so the step to the next row is left"):
        read(values, ["dial"], events=[])


def test_missing_states_are_marked_and_carried_forward():
    values = table([0, 1, 2, 3, 4])
    values["x"] = [None, 2.0, None, float("nan"), 5.0]
    read_in = read(values)
    assert read_in.observed[:, 0].tolist() == [False, True, False, False, True]
    assert read_in.state[:, 0].tolist() == [2, 2, 2, 2, 5]


def test_texts_that_mean_empty_are_empty():
    values = table([0, 1, 2])
    values["x"] = ["1.5", ".", "NA"]
    assert read(values).observed[:, 0].tolist() == [True, False, False]


def test_doses_of_uneven_tables_act_for_one_base_step():
    """Base step 2: a dose at 0 ends between rows, doses at 7 and 8 overlap."""
    values = table([0.0, 4.0, 6.0, 7.0, 8.0, 10.0, 12.0], dose=[1.0, 0.0, 0.0, 2.0, 4.0, 0.0, 0.0])
    read_in = read(values, ["dose"], step=2.0)
    assert read_in.schema.events == ("dose",)
    times = np.r_[0, np.cumsum(read_in.duration.numpy()[:-1])] * 2
    acts = dict(zip(times.round(6).tolist(), read_in.action[:, 0].tolist(), strict=True))
    assert acts == {0: 1, 2: 0, 4: 0, 6: 0, 7: 2, 8: 6, 9: 4, 10: 0, 12: 0}
    # The amount times the time that it acts does not depend on the rows.
    total = (read_in.action[:-1, 0] * read_in.duration[:-1]).sum()
    assert float(total) == pytest.approx(7)


def test_what_is_left_of_a_dose_at_the_end_acts_on():
    read_in = read(table([0.0, 2.0, 3.0, 5.0, 5.5], dose=[0.0, 0.0, 0.0, 2.0, 1.0]), ["dose"], step=2.0)
    assert read_in.final_action[0, 0] == pytest.approx(2 * 0.75 + 1)


def test_doses_in_rows_of_their_own_are_events_and_empty_cells_are_none():
    values = table([0, 1, 2, 3], dose=[5.0, None, 2.0, None])
    values["x"] = [None, 1.0, None, 2.0]
    read_in = read(values, ["dose"])
    assert read_in.schema.events == ("dose",)
    assert read_in.action[:3, 0].tolist() == [5, 0, 2]


def test_fill_says_what_empty_cells_mean():
    values = table([0, 1, 2, 3], dial=[5.0, None, 2.0, None], mode=["a", None, "b", "a"])
    assert read(values, ["dial"], fill={"dial": 0}).action[:3, 0].tolist() == [5, 0, 2]
    assert read(values, ["dial"], fill={"dial": "last"}).action[:3, 0].tolist() == [5, 5, 2]
    assert read(values, ["mode"], fill={"mode": "b"}).action[:3].tolist() == [0, 1, 1]
    with pytest.raises(ConfigurationError, match="fill: 0 does not fit column 'mode' of type string"):
        read(values, ["mode"], fill={"mode": 0})


def test_tables_without_actions():
    read_in = read(table([0, 1, 2]))
    assert (read_in.schema.action, read_in.schema.num_actions, read_in.action.tolist()) == ((), 1, [0, 0, 0])
    assert read_like(read_in.schema, table([5, 6])).num_trajectories == 1


def test_inputs_are_encoded_after_actions():
    values = table([0, 1, 2], dose=[1.0, 2.0, 3.0], weather=["dry", "wet", "dry"], meal=[7.0, 8.0, 9.0])
    schema = read(values, ["dose"], inputs=["weather", "meal"]).schema
    assert schema.action == ("dose", "weather=dry", "weather=wet", "meal")
    assert schema.inputs == ("weather", "meal")


def test_covariates_are_constant_for_an_agent():
    values = {
        "who": ["b", "b", "a", "a", "c"],
        "t": [0, 1, 0, 1, 0],
        "x": [1.0, 2, 3, 4, 5],
        "weight": [70.0, None, 60.0, 60.0, None],
        "sex": ["m", "m", None, "f", "f"],
    }
    read_in = read(values, covariates=["weight", "sex"])
    expected = torch.tensor([[60.0, 0.0], [70.0, 1.0], [torch.nan, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(read_in.covariates, expected, equal_nan=True)
    torch.testing.assert_close(read_in.restricted(["c", "a"]).covariates, expected[[2, 0]], equal_nan=True)
    values["weight"][3] = 61.0
    with pytest.raises(TableError, match="column 'weight', agent a, row 3: differs from the agent's other rows"):
        read(values, covariates=["weight", "sex"])
    with pytest.raises(TableError, match="covariate 'sex': unknown category 'x', expected one of f, m"):
        read_like(read_in.schema, {**values, "weight": [1.0] * 5, "sex": ["x"] * 5})


def test_actions_that_never_change_within_an_agent_are_warned_of():
    values = {"who": ["a", "a", "b", "b"], "t": [0, 1, 0, 1], "x": [1.0, 2, 3, 4], "diet": ["p", "p", "q", "q"]}
    with pytest.warns(UserWarning, match="mine: action column 'diet' never changes within an agent.*covariates"):
        read(values, ["diet"])
