"""Short and incomplete episodes of a user's table are scored from their first row on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from persim_lightning.data.tables.sources import write_table
from persim_lightning.data.tables.user import read_like
from persim_lightning.evaluation.filtering import filtered_states
from persim_lightning.evaluation.prediction import EpisodeWindows
from persim_lightning.evaluation.report import evaluate
from tests.rooms import rooms


def test_episodes_of_eight_rows_are_scored(switched, tmp_path):
    write_table(pa.table(rooms(16, 8, seed=8)), tmp_path / "short.csv")
    records = evaluate(switched.population, tmp_path / "short.csv")
    assert [record["scored"] for record in records] == [1] * 16
    test = read_like(switched.schema, rooms(16, 8, seed=8))
    rolled = switched.population.simulator.rollout(
        switched.population.index(test.agent_ids), test.state.view(16, 8, 1)[:, 0], test.action.view(16, 8)[:, :7]
    ).mean(0)[:, 1:]
    expected = (rolled - test.state.view(16, 8, 1)[:, 1:]).square().mean((1, 2)).sqrt()
    np.testing.assert_allclose([record["rmse"] for record in records], expected, rtol=1e-4)
    assert [record["rmse_by_state"]["temperature"] for record in records] == pytest.approx(expected.tolist(), rel=1e-4)


def test_what_was_not_observed_is_not_scored(switched, tmp_path):
    table = rooms(4, 40, seed=8)
    table["temperature"] = [None if row % 3 == 1 else value for row, value in enumerate(table["temperature"])]
    test = read_like(switched.schema, table)
    windows = EpisodeWindows.cut(test)
    expected = [int(test.observed[40 * a + 11 : 40 * a + 40].sum()) for a in range(4)]
    assert windows.observed.sum(1)[:, 0].tolist() == expected
    write_table(pa.table(table), tmp_path / "missing.parquet")
    records = evaluate(switched.population, tmp_path / "missing.parquet")
    assert all(record["rmse"] < 0.2 for record in records)


def test_filtered_states_keep_what_was_observed(switched):
    """Against the simulator, row by row."""
    table = rooms(3, 12, seed=4)
    missing = [row % 4 in (1, 2) for row in range(36)]
    table["temperature"] = [None if gone else value for gone, value in zip(missing, table["temperature"], strict=True)]
    test = read_like(switched.schema, table)
    found = filtered_states(switched.population, test)
    simulator, agents = switched.population.simulator, switched.population.index(test.agent_ids)
    for agent in range(3):
        state = test.state[12 * agent].expand(simulator.members, 1, 1)
        for row in range(12 * agent + 1, 12 * agent + 12):
            state = simulator.step(agents[agent : agent + 1], state, test.action[row - 1 : row])
            if test.observed[row, 0]:
                state = test.state[row].expand_as(state)
            assert float(found[row, 0]) == pytest.approx(float(state.mean()), rel=1e-4)
