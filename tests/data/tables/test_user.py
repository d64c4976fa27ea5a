"""Tables as users have them: what is read from them, and what is refused, and where."""

import datetime

import pytest
import torch

from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.user import read_like
from persim_lightning.errors import TableError
from persim_lightning.types import Schema
from tests.data.tables.patients import GAPPY, long_table, patients, read


def test_mixed_actions_string_ids_and_starting_days():
    read_in = read(patients())
    assert read_in.agent_ids == ("bob", "eve")
    assert read_in.state[:, 0].tolist() == [4.0, 4.5, 4.25, 7.0, 6.5, 5.0]
    assert read_in.schema.action == ("dose", "drug=a", "drug=b", "drug=c")
    expected = [[0, 1, 0, 0], [2, 1, 0, 0], [0] * 4, [1, 0, 1, 0], [0.5, 0, 0, 1], [0] * 4]
    torch.testing.assert_close(read_in.action, torch.tensor(expected))
    assert read_in.terminated.tolist() == [False, True]
    assert read_in.returns().tolist() == [6.0, 4.0]
    assert Schema.from_dict(read_in.schema.to_dict()) == read_in.schema


def test_further_rows_are_encoded_alike():
    schema = read(patients()).schema
    more = {"patient": [7, 7], "day": [1, 2], "glucose": [1.0, 2.0], "dose": [3.0, None], "drug": ["c", None]}
    assert read_like(schema, more).action[0].tolist() == [3.0, 0.0, 0.0, 1.0]
    with pytest.raises(TableError, match=r"column 'drug', row 0: unknown category 'z', expected one of a, b, c"):
        read_like(schema, {**more, "drug": ["z", None]})
    assert read_like(schema, {**more, "day": [1, 5]}).duration.tolist() == [4, 0]


BAD = {
    "missing column": (lambda c: c.pop("drug"), r"missing column\(s\) drug; the table has patient"),
    "time twice": (
        lambda c: c["day"].__setitem__(3, 2),
        "column 'glucose', agent eve, row 3: the agent has two rows with this time and different",
    ),
    "no id": (lambda c: c["patient"].__setitem__(4, None), "column 'patient', row 4: empty agent id"),
    "no time": (lambda c: c.update(day=[0, 1, None, 2, 3, 4]), "column 'day', row 2: empty time"),
    "text as time": (lambda c: c.update(day=["a"] * 6), "column 'day' contains text that is not a date"),
    "text as state": (
        lambda c: c.update(glucose=["high"] * 6),
        "agent bob, row 2: 'high' is not a number",
    ),
    "empty state": (lambda c: c.update(glucose=[None] * 6), "state column 'glucose' is empty"),
    "infinite state": (lambda c: c["glucose"].__setitem__(4, float("inf")), "column 'glucose', agent bob, row 4: infi"),
    "odd flag": (lambda c: c.update(cured=[2, 0, 0, 0, 0, 0]), "column 'cured', row 0: neither 0 nor 1"),
    "one category": (lambda c: c.update(drug=["a"] * 6), "action column 'drug' has 1 categories, expected 2 … 100"),
    "dates as action": (lambda c: c.update(drug=[datetime.date(2024, 1, 1)] * 6), "'drug' has type date32"),
    "text among doses": (
        lambda c: c.update(dose=["1", "0.5", "0", "high", "2", ""]),
        "row 3: 'high' is text in",
    ),
    "goes on after its end": (
        lambda c: c["cured"].__setitem__(3, True),
        "row 3: terminated, but the trajectory",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_column_agent_and_row(case):
    spoil, message = BAD[case]
    values = patients()
    spoil(values)
    with pytest.raises(TableError, match=f"mine: .*{message}"):
        read(values)


def test_an_agent_with_a_single_row_is_kept():
    values = {**long_table([0, 1, 2]), "patient": ["eve", "eve", "bob"]}
    kept = read(values, GAPPY)
    assert (kept.agent_ids, kept.lengths.tolist()) == (("bob", "eve"), [1, 2])


@pytest.mark.parametrize("name", ["dose", "drug"])
def test_the_step_from_a_row_with_an_empty_action_is_left_out(name):
    values = patients()
    values[name][3] = None
    with pytest.warns(UserWarning, match=f"mine: column '{name}', agent eve, row 3: empty, so the step"):
        kept = read(values)
    assert kept.num_trajectories == 3
    assert len(kept.split_rows(0.0)[0]) == 3


def test_tables_that_may_split_let_further_tables_split():
    gappy = TableColumns(["glucose"], ["dose"], "patient", "day", gaps="split")
    schema = read(long_table([0, 1, 2, 5, 6]), gappy).schema
    more = {**long_table([0, 1, 4, 5]), "patient": ["bob"] * 4}
    assert read_like(schema, more).lengths.tolist() == [2, 2]
