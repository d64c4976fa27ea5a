"""Steps counted from times of any kind, and gaps."""

import datetime

import pytest

from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import TableError
from tests.data.tables.patients import GAPPY, long_table, patients, read


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ([0.3, 0.1, 5.0, 0.2, 5.1, 5.2], 0.1),
        ([datetime.date(2024, 3, d) for d in (15, 1, 1, 8, 8, 15)], 7 * 86400.0),
        ([datetime.datetime(2024, 3, 1, h, 30) for h in (2, 0, 10, 1, 11, 12)], 3600.0),
    ],
)
def test_steps_are_found_in_any_kind_of_time(times, step):
    read_in = read({**patients(), "day": times})
    assert read_in.schema.step == pytest.approx(step)
    assert read_in.lengths.tolist() == [3, 3]


def test_gaps_are_kept_stop_split_or_do_not_count():
    values = long_table([0, 1, 2, 5, 6, 9])
    kept = read(values, GAPPY)
    assert kept.lengths.tolist() == [6]
    assert kept.duration.tolist() == [1, 1, 3, 1, 3, 0]
    with pytest.raises(
        TableError,
        match=r"column 'day', agent eve, row 3: 5 follows 2, but the step between rows is 1 \(gaps: error\).*1 more",
    ):
        read(values, TableColumns(["glucose"], ["dose"], "patient", "day", gaps="error"))
    split = read(values, TableColumns(["glucose"], ["dose"], "patient", "day", gaps="split"))
    assert split.lengths.tolist() == [3, 2, 1]
    assert split.split_rows(0.0)[0].tolist() == [0, 1, 3]
    whole = read(values, TableColumns(["glucose"], ["dose"], "patient", "day", step="row"))
    assert whole.lengths.tolist() == [6]
    every_third = TableColumns(["glucose"], ["dose"], "patient", "day", step=3, gaps="split")
    assert read(long_table([0, 3, 4, 7]), every_third).lengths.tolist() == [2, 2]


def test_episodes_of_an_agent_are_trajectories_of_its_own():
    values = {**long_table([0, 1, 2, 0, 1]), "visit": ["a", "a", "a", "b", "b"]}
    read_in = read(values, TableColumns(["glucose"], ["dose"], "patient", "day", episode="visit"))
    assert (read_in.lengths.tolist(), read_in.agent.tolist()) == ([3, 2], [0, 0])
