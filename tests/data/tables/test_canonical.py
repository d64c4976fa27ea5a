"""The long table: what is read from it, and what is refused and how."""

import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.canonical import load_trajectories, trajectories_from_table
from persim_lightning.data.tables.sources import write_table
from persim_lightning.errors import TableError
from persim_lightning.types import Schema


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_reads_states_actions_and_differences(tmp_path, columns, schema, suffix):
    path = tmp_path / f"table{suffix}"
    write_table(pa.table(columns), path)
    loaded = load_trajectories(path, schema)
    assert loaded.agent_ids == (0, 7)
    assert loaded.agent.tolist() == [0, 1]
    assert loaded.offsets.tolist() == [0, 3, 6]
    assert loaded.action.tolist() == [0, 2, 0, 1, 1, 0]
    assert loaded.terminated.tolist() == [True, False]
    expected = [[0.1, 0.1], [0.2, 0.1], [0, 0], [0.5, -0.75], [-0.25, 0.25], [0, 0]]
    torch.testing.assert_close(loaded.delta, torch.tensor(expected))


def test_rows_in_any_order_give_the_same(columns, schema):
    table = pa.table(columns)
    one = trajectories_from_table(table, schema, "t")
    other = trajectories_from_table(table.take([4, 0, 5, 2, 1, 3]), schema, "t")
    assert torch.equal(one.state, other.state)
    assert torch.equal(one.delta, other.delta)
    assert torch.equal(one.action, other.action)


def test_string_ids_and_several_episodes(columns, schema):
    columns |= {"agent": ["b"] * 6, "episode": [0, 0, 0, 1, 1, 1]}
    loaded = trajectories_from_table(pa.table(columns), schema, "t")
    assert loaded.agent_ids == ("b",)
    assert loaded.agent.tolist() == [0, 0]
    assert loaded.lengths.tolist() == [3, 3]


def test_differences_are_taken_in_float64(columns, schema):
    """5e-8 beside 0.5 is lost in float32."""
    columns["position"] = [0.5, 0.5 + 5e-8, 0.5 + 1e-7, 0, 0, 0]
    loaded = trajectories_from_table(pa.table(columns), schema, "t")
    assert loaded.delta[0, 0].item() == pytest.approx(5e-8, rel=1e-4)


def test_continuous_actions(columns):
    schema = Schema(state=("position",), action=("velocity", "force"), num_actions=None)
    columns["force"] = [0.5, 0.25, float("nan"), 1.0, 2.0, None]
    del columns["action"]
    loaded = trajectories_from_table(pa.table(columns), schema, "t")
    torch.testing.assert_close(loaded.action[1], torch.tensor([0.2, 0.25]))
    assert loaded.action[2].tolist() == [0, 0]


BAD = {
    "missing column": (lambda c: c.pop("velocity"), r"missing column\(s\) velocity"),
    "extra column": (lambda c: c.update(gravity=[1.0] * 6), r"unknown column\(s\) gravity"),
    "nan": (lambda c: c["position"].__setitem__(4, float("nan")), "'position', agent 7, row 4: empty, NaN"),
    "infinite": (lambda c: c["velocity"].__setitem__(1, float("inf")), "'velocity', agent 0, row 1"),
    "null state": (lambda c: c["velocity"].__setitem__(2, None), "'velocity', agent 0, row 2"),
    "gap": (lambda c: c["t"].__setitem__(5, 4), "'t', agent 7, row 5: step 4 follows step 1"),
    "duplicate": (lambda c: c["t"].__setitem__(5, 1), "'t', agent 7, row 5: duplicate step"),
    "single row": (lambda c: [v.append(v[0]) for v in c.values()] and c["agent"].__setitem__(6, 9), "agent 9, row 6"),
    "unknown action": (
        lambda c: c["action"].__setitem__(3, 3),
        "agent 7, row 3: unknown action, expected 0 … 2",
    ),
    "missing action": (lambda c: c["action"].__setitem__(0, None), "'action', agent 0, row 0"),
    "fractional action": (lambda c: c.update(action=[0.5, 1, None, 1, 1, None]), "agent 0, row 0: unknown action"),
    "text state": (
        lambda c: c.update(position=["a"] * 6),
        "'position', agent 0, row 0: 'a' is not a number",
    ),
    "float time": (lambda c: c.update(t=[0.0, 1, 2, 0, 1, 2]), "'t' has type double, expected integers"),
    "float agent": (lambda c: c.update(agent=[0.5] * 6), "'agent' has type double, expected integers or strings"),
    "null agent": (lambda c: c["agent"].__setitem__(3, None), "'agent', row 3: empty agent id"),
    "text terminated": (lambda c: c.update(terminated=["no"] * 6), "'terminated' has type string, expected booleans"),
    "early end": (lambda c: c["terminated"].__setitem__(0, True), "'terminated', agent 0, row 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_name_file_column_agent_and_row(columns, schema, case):
    spoil, message = BAD[case]
    spoil(columns)
    with pytest.raises(TableError, match=message) as caught:
        trajectories_from_table(pa.table(columns), schema, "patients.csv")
    assert "patients.csv" in str(caught.value)


def test_rows_are_named_as_they_stand_in_the_file(columns, schema):
    columns["position"][4] = float("nan")
    with pytest.raises(TableError, match="agent 7, row 1"):
        trajectories_from_table(pa.table(columns).take([5, 4, 3, 2, 1, 0]), schema, "t")


@pytest.mark.parametrize(("name", "content"), [("a.parquet", None), ("a.txt", "x"), ("a.parquet", "no"), ("a.csv", "")])
def test_unreadable_files(tmp_path, schema, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(TableError, match=name):
        load_trajectories(path, schema)
