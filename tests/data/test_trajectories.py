"""Trajectories: walls, normalization constants, and the selection of agents."""

import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.canonical import load_trajectories, trajectories_from_table
from persim_lightning.types import Schema


def test_walls_are_extremes_at_which_states_pile_up():
    """A car that rests at a wall, then leaves it; its clock never stops, and a constant column is no wall."""
    position = [-0.9, -1.1, *[-1.2] * 12, -1.1, -0.9]
    rows = len(position)
    speed = [-0.1, -0.2, *[0.0] * 12, 0.1, 0.2]
    columns = {"x": position, "v": speed, "clock": [float(step) for step in range(rows)], "still": [3.0] * rows}
    table = pa.table({"agent": [0] * rows, "t": list(range(rows)), **columns, "action": [0] * rows})
    data = trajectories_from_table(table, Schema(tuple(columns), ("action",), 2), "t")
    walls = data.walls()
    assert walls.low.tolist() == pytest.approx([-1.2, -torch.inf, -torch.inf, -torch.inf])
    assert walls.high.tolist() == [torch.inf] * 4
    assert walls.low_contact[0].tolist() == pytest.approx([-1.2, 0.0, torch.nan, 3.0], nan_ok=True)
    assert walls.low_contact[1:].isnan().all()
    assert data.starts_of_contacts(walls).nonzero()[:, 0].tolist() == list(range(1, 13))


def test_many_trajectories_that_start_at_one_state_make_no_wall():
    agents = [agent for agent in range(12) for _ in range(3)]
    table = {"agent": agents, "t": [0, 1, 2] * 12, "x": [0.0, 0.5, 1.0 + 0.0] * 12, "action": [0] * 36}
    table["x"] = [x + 0.001 * row * (row % 3 > 0) for row, x in enumerate(table["x"])]
    walls = trajectories_from_table(pa.table(table), Schema(("x",), ("action",), 2), "t").walls()
    assert walls.low.tolist() == [-torch.inf]


def test_constant_columns_get_scale_one(columns, schema):
    columns["velocity"] = [2.0] * 6
    loaded = trajectories_from_table(pa.table(columns), schema, "t")
    statistics = loaded.statistics(loaded.split_rows(0.0)[0])
    assert statistics.state_std[1] == 1
    assert 0 < statistics.delta_rms[1] < 1e-15


def test_trajectories_of_some_agents_keep_their_rows_and_order(table_path, schema):
    whole = load_trajectories(table_path, schema)
    swapped = whole.restricted([7, 0])
    assert swapped.agent_ids == (7, 0)
    assert swapped.agent.tolist() == [0, 1]
    assert swapped.offsets.tolist() == [0, 3, 6]
    for name in ("state", "action", "delta"):
        one, two = getattr(whole, name), getattr(swapped, name)
        assert torch.equal(two, torch.cat((one[3:], one[:3])))
    assert swapped.terminated.tolist() == whole.terminated.flip(0).tolist()
    alone = whole.restricted([7])
    assert torch.equal(alone.state, whole.state[3:])
    assert alone.num_trajectories == 1
