"""Tables as users have them: any source, any time column, any kind of action; and what is refused, and where."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.actions import decode_actions, encode_actions
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.sources import as_table, write_table
from persim_lightning.data.tables.user import read_like, user_trajectories
from persim_lightning.errors import ConfigurationError, TableError
from persim_lightning.types import Schema

COLUMNS = TableColumns(
    state=["glucose"], action=["dose", "drug"], agent="patient", time="day", reward="well", terminated="cured"
)


def patients() -> dict[str, list]:
    """Two patients: rows out of order, an unused column, mixed actions."""
    return {
        "patient": ["eve", "eve", "bob", "eve", "bob", "bob"],
        "day": [2, 0, 10, 1, 11, 12],
        "glucose": [5.0, 7.0, 4.0, 6.5, 4.5, 4.25],
        "dose": [None, 1.0, 0.0, 0.5, 2.0, None],
        "drug": [None, "b", "a", "c", "a", None],
        "well": [None, 1.0, 2.0, 3.0, 4.0, None],
        "cured": [True, False, False, False, False, False],
        "name": ["x"] * 6,
    }


def read(values, columns=COLUMNS):
    return user_trajectories(pa.table(values), columns, "mine")


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


def test_a_single_categorical_column_is_a_discrete_action():
    values = {**patients(), "arm": [None, 20, 10, 10, 20, None]}
    columns = TableColumns(["glucose"], ["arm"], "patient", "day", categorical=["arm"])
    read_in = read(values, columns)
    assert (read_in.schema.num_actions, read_in.schema.action_columns[0].categories) == (2, (10, 20))
    assert read_in.action.tolist() == [0, 1, 0, 1, 0, 0]
    assert read(values, TableColumns(["glucose"], ["arm"], "patient", "day")).schema.num_actions is None


@pytest.mark.parametrize("kind", ["path", "pandas", "polars", "arrow", "dict"])
def test_any_source_gives_the_same(tmp_path, kind):
    if kind in ("pandas", "polars"):
        frame = pytest.importorskip(kind).DataFrame(patients())
        given = frame.astype({"drug": "category"}) if kind == "pandas" else frame
    elif kind == "path":
        given = tmp_path / "patients.csv"
        write_table(pa.table(patients()), given)
    else:
        given = pa.table(patients()) if kind == "arrow" else patients()
    table, _ = as_table(given)
    read_in, expected = user_trajectories(table, COLUMNS, "mine"), read(patients())
    for name in ("state", "action", "delta", "offsets", "agent", "reward"):
        assert torch.equal(getattr(read_in, name), getattr(expected, name))
    assert read_in.schema == expected.schema


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


def long_table(days):
    count = len(days)
    return {
        "patient": ["eve"] * count,
        "day": days,
        "glucose": np.arange(count, dtype=float),
        "dose": np.ones(count),
    }


GAPPY = TableColumns(["glucose"], ["dose"], "patient", "day")


def test_gaps_stop_split_or_do_not_count():
    values = long_table([0, 1, 2, 5, 6, 9])
    with pytest.raises(TableError, match=r"column 'day', agent eve, row 3: 5 follows 2, but rows lie 1 apart.*1 more"):
        read(values, GAPPY)
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


def test_further_rows_are_encoded_alike():
    schema = read(patients()).schema
    more = {"patient": [7, 7], "day": [1, 2], "glucose": [1.0, 2.0], "dose": [3.0, None], "drug": ["c", None]}
    assert read_like(schema, more).action[0].tolist() == [3.0, 0.0, 0.0, 1.0]
    with pytest.raises(TableError, match=r"column 'drug', row 0: unknown category 'z': the known ones are a, b, c"):
        read_like(schema, {**more, "drug": ["z", None]})
    with pytest.raises(TableError, match="5 follows 1, but rows lie 1 apart"):
        read_like(schema, {**more, "day": [1, 5]})


def test_actions_by_their_names_and_back():
    schema = read(patients()).schema
    given = {"dose": [0.5, 2], "drug": ["c", "a"]}
    encoded = encode_actions(given, schema)
    assert encoded.tolist() == [[0.5, 0, 0, 1], [2, 1, 0, 0]]
    assert decode_actions(encoded, schema) == {"dose": [0.5, 2.0], "drug": ["c", "a"]}
    for bad, message in (({"dose": [1]}, "missing column.*drug"), ({**given, "drug": ["c", "?"]}, "row 1: unknown")):
        with pytest.raises(TableError, match=message):
            encode_actions(bad, schema)
    with pytest.raises(TableError, match="column 'dose', row 1: empty"):
        encode_actions({**given, "dose": [1, None]}, schema)


BAD = {
    "missing column": (lambda c: c.pop("drug"), r"missing column\(s\) drug; the table has patient"),
    "time twice": (lambda c: c["day"].__setitem__(3, 2), "column 'day', agent eve, row 3: the agent has two rows"),
    "no id": (lambda c: c["patient"].__setitem__(4, None), "column 'patient', row 4: no agent id"),
    "no time": (lambda c: c.update(day=[0, 1, None, 2, 3, 4]), "column 'day', row 2: no time"),
    "text as time": (lambda c: c.update(day=["a"] * 6), "column 'day' holds text that is no date"),
    "text as state": (
        lambda c: c.update(glucose=["high"] * 6),
        "agent bob, row 2: 'high' is not a number",
    ),
    "empty state": (lambda c: c["glucose"].__setitem__(4, None), "column 'glucose', agent bob, row 4: empty"),
    "empty dose": (lambda c: c["dose"].__setitem__(3, None), "column 'dose', agent eve, row 3: empty"),
    "empty drug": (lambda c: c["drug"].__setitem__(3, None), "column 'drug', row 3: empty"),
    "odd flag": (lambda c: c.update(cured=[2, 0, 0, 0, 0, 0]), "column 'cured', row 0: neither 0 nor 1"),
    "one category": (lambda c: c.update(drug=["a"] * 6), "action column 'drug' holds 1 categories"),
    "dates as action": (lambda c: c.update(drug=[datetime.date(2024, 1, 1)] * 6), "'drug' holds date32"),
    "text among doses": (lambda c: c.update(dose=["1", "0.5", "0", "high", "2", ""]), "row 3: 'high' stands among"),
    "goes on after its end": (lambda c: c["cured"].__setitem__(3, True), "row 3: terminated, but the trajectory goes"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_column_agent_and_row(case):
    spoil, message = BAD[case]
    values = patients()
    spoil(values)
    with pytest.raises(TableError, match=f"mine: .*{message}"):
        read(values)


def test_columns_have_one_meaning_and_sources_a_known_kind():
    for options, message in (
        ({"state": []}, "columns.state must list"),
        ({"state": "glucose"}, "columns.state must list"),
        ({"state": ["dose"]}, "'dose' is named twice"),
        ({"categorical": ["drug"]}, "'drug' is not among the action columns"),
        ({"step": 0.0}, "must be a positive number or 'row'"),
        ({"step": "day"}, "'day' must be a positive number or 'row'"),
        ({"gaps": "skip"}, "'skip': choose 'error' or 'split'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            TableColumns(**{"state": ["glucose"], "action": ["dose"], **options})
    with pytest.raises(TableError, match=r"table: give a path.*not builtins\.int"):
        as_table(3)
    with pytest.raises(TableError, match="has no rows"):
        as_table({"a": []})
    with pytest.raises(TableError, match="cannot be read"):
        as_table({"a": [1], "b": [1, 2]})


def test_an_agent_with_a_single_row_is_named():
    values = {**long_table([0, 1, 2]), "patient": ["eve", "eve", "bob"]}
    with pytest.raises(TableError, match="agent bob, row 2: the agent's trajectory has a single row"):
        read(values, GAPPY)


def test_a_column_with_the_name_of_an_indicator_is_refused():
    values = {**patients(), "drug=a": patients()["glucose"]}
    with pytest.raises(TableError, match="column 'drug=a' has the name of an encoded action"):
        read(values, TableColumns(["drug=a"], ["drug", "dose"], "patient", "day"))


def test_what_stands_in_last_rows_alone_is_no_action():
    values = patients()
    values["drug"][0], values["drug"][5] = "discharged", "discharged"
    values["dose"][0] = 1000.0
    read_in = read(values)
    assert read_in.schema.action_columns[1].categories == ("a", "b", "c")
    assert float(read_in.action.max()) == 2.0


@pytest.mark.parametrize("empty", [None, float("nan")])
def test_codes_that_empty_cells_have_made_fractions(empty):
    values = {**patients(), "arm": [empty, 20.0, 10.0, 10.0, 20.0, empty]}
    columns = TableColumns(["glucose"], ["arm", "dose"], "patient", "day", categorical=["arm"])
    assert read(values, columns).schema.action == ("arm=10", "arm=20", "dose")
    with pytest.raises(TableError, match="column 'arm', row 2: not a whole number, but the column holds codes"):
        read({**values, "arm": [empty, 20.0, 10.5, 10.0, 20.0, empty]}, columns)


def test_dates_as_text_and_categories_of_polars():
    days = [f"2024-03-{day:02d}" for day in (3, 1, 11, 2, 12, 13)]
    assert read({**patients(), "day": days}).schema.step == 86400
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(patients()).with_columns(polars.col("drug", "patient").cast(polars.Categorical))
    read_in = user_trajectories(as_table(frame)[0], COLUMNS, "mine")
    assert torch.equal(read_in.action, read(patients()).action)
    assert read_in.agent_ids == ("bob", "eve")


def test_tables_that_may_split_let_further_tables_split():
    gappy = TableColumns(["glucose"], ["dose"], "patient", "day", gaps="split")
    schema = read(long_table([0, 1, 2, 5, 6]), gappy).schema
    more = {**long_table([0, 1, 4, 5]), "patient": ["bob"] * 4}
    assert read_like(schema, more).lengths.tolist() == [2, 2]
