"""Forecasts of uneven tables with missing values: accuracy, invariance, kinds of tables, and bad questions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
import torch

from persim_lightning import PersonalizedSimulator
from persim_lightning.cli import forecast
from persim_lightning.data.tables.actions import decode_actions
from persim_lightning.data.tables.sources import read_table, write_table
from persim_lightning.errors import ConfigurationError, PersimError, TableError
from tests.tanks import ROLES, level_after, tanks

QUICK = {"step": 1.0, "rank": 3, "members": 2, "hidden_width": 16, "epochs": 60, "holdout": 0.1, "progress": False}


@pytest.fixture(scope="module")
def simulator():
    return PersonalizedSimulator.fit(tanks(16, 40, missing=0.2), **ROLES, **QUICK)


def last(simulator, tank):
    """Hour, level and poured water of a tank's last row in the table."""
    rows = pa.table(tanks(16, 40, missing=0.2)).to_pylist()
    row = [row for row in rows if row["tank"] == f"t{tank}"][-1]
    return row["hour"], row["level"], row["poured"]


def test_levels_of_rows_to_come(simulator):
    assert simulator.population.simulator.config.integrator == "rk4"
    assert simulator.schema.events == ("poured",)
    errors = []
    for tank in range(16):
        hour, level, poured = last(simulator, tank)
        if level is None:
            continue
        asked = {"tank": [f"t{tank}"] * 3, "hour": [hour + 1.5, hour + 3.0, hour + 5.5], "poured": [0.5, 0.0, 0.0]}
        truth = [level_after(tank, level, poured, 1.5)]
        truth.append(level_after(tank, truth[-1], 0.5, 1.5))
        truth.append(level_after(tank, truth[-1], 0.0, 2.5))
        answer = simulator.forecast(asked)
        assert answer.column_names == ["tank", "hour", "level"]
        errors.append(np.array(answer["level"]) - truth)
    assert len(errors) > 8
    assert np.sqrt(np.mean(np.square(errors))) < 0.05


def test_further_questions_in_between_change_nothing(simulator):
    hour, _, _ = last(simulator, 3)
    few = {"tank": ["t3", "t3"], "hour": [hour + 1, hour + 6], "poured": [0.7, 0.0]}
    many_hours = [hour + 1, hour + 2.3, hour + 3.1, hour + 3.1, hour + 4.7, hour + 6]
    many = {"tank": ["t3"] * 6, "hour": many_hours, "poured": [0.7, 0, 0, 0, 0, 0]}
    sparse, dense = (np.array(simulator.forecast(asked)["level"]) for asked in (few, many))
    np.testing.assert_allclose(dense[[0, -1]], sparse, rtol=1e-5)
    assert dense[2] == dense[3]


def test_the_order_of_rows_and_agents_does_not_matter(simulator):
    hours = {tank: last(simulator, tank)[0] for tank in (2, 9)}
    rows = [(f"t{tank}", hours[tank] + ahead, 0.1 * ahead) for tank in (2, 9) for ahead in (1.0, 2.0, 4.0)]
    names = ("tank", "hour", "poured")
    asked = {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    straight = np.array(simulator.forecast(asked)["level"])
    order = [4, 0, 5, 2, 1, 3]
    mixed = {name: [values[row] for row in order] for name, values in asked.items()}
    np.testing.assert_allclose(np.array(simulator.forecast(mixed)["level"]), straight[order], rtol=1e-6)


def test_answers_are_tables_of_the_kind_that_was_given(simulator):
    hour, _, _ = last(simulator, 0)
    asked = {"tank": ["t0", "t0"], "hour": [hour + 1, hour + 2], "poured": [0.0, 0.0], "note": ["a", "b"]}
    expected = simulator.forecast(pa.table(asked), level=0.9)
    assert expected.column_names == ["tank", "hour", "level", "level_low", "level_high"]
    for kind in (pandas.DataFrame, polars.DataFrame):
        answer = simulator.forecast(kind(asked), level=0.9)
        assert isinstance(answer, kind)
        assert list(answer.columns) == expected.column_names
        np.testing.assert_array_equal(answer["level_high"].to_numpy(), expected["level_high"].to_numpy())
    low, middle, high = (expected[name].to_numpy() for name in ("level_low", "level", "level_high"))
    assert (low < middle).all()
    assert (middle < high).all()
    narrow = simulator.forecast(asked, level=0.5)
    assert (narrow["level_high"].to_numpy() < high).all()


def test_history_replaces_recorded_rows_and_adapts_to_unknown_agents(simulator):
    new = tanks(2, 15, seed=3, first=20)
    old = {"tank": ["t1", "t1"], "hour": [500.0, 501.5], "level": [3.0, None], "poured": [0.0, 0.0]}
    history = pa.concat_tables([pa.table(new), pa.table(old)])
    hour = max(value for tank, value in zip(new["tank"], new["hour"], strict=True) if tank == "t20")
    level = [value for tank, value in zip(new["tank"], new["level"], strict=True) if tank == "t20"][-1]
    poured = [value for tank, value in zip(new["tank"], new["poured"], strict=True) if tank == "t20"][-1]
    asked = {"tank": ["t20", "t1"], "hour": [hour + 4, 504.0], "poured": [0.0, 0.0]}
    answer = simulator.forecast(asked, history)["level"].to_pylist()
    assert answer[0] == pytest.approx(level_after(20, level, poured, 4.0), abs=0.12)
    assert answer[1] == pytest.approx(level_after(1, 3.0, 0.0, 4.0), abs=0.12)
    one_row = {"tank": ["x"], "hour": [0.0], "level": [1.5], "poured": [0.0]}
    single = simulator.forecast({"tank": ["x"], "hour": [2.0], "poured": [0.0]}, one_row)["level"].to_pylist()
    assert 0.5 < single[0] < 1.5


def test_forecasts_survive_saving(simulator, tmp_path):
    hour, _, _ = last(simulator, 5)
    asked = {"tank": ["t5", "t5"], "hour": [hour + 1, hour + 3], "poured": [0.3, 0.0]}
    simulator.save(tmp_path)
    loaded = PersonalizedSimulator.load(tmp_path)
    assert loaded.schema == simulator.schema
    before, after = (known.forecast(asked, level=0.9) for known in (simulator, loaded))
    for name in ("level", "level_low"):
        np.testing.assert_allclose(after[name].to_numpy(), before[name].to_numpy(), rtol=1e-6)


def test_the_command_writes_a_table(simulator, tmp_path, capsys):
    hour, _, _ = last(simulator, 5)
    simulator.save(tmp_path / "run")
    write_table(pa.table({"tank": ["t5"], "hour": [hour + 1], "poured": [0.0]}), tmp_path / "future.csv")
    forecast.main(["--run", str(tmp_path / "run"), "--data", str(tmp_path / "future.csv"), "--level", "0.8"])
    answer = read_table(tmp_path / "run/forecast-future.csv")
    assert answer.column_names == ["tank", "hour", "level", "level_low", "level_high"]
    assert "wrote 1 rows of 1 state column(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tank": ["t0", "who"]}, TableError, "future: column 'tank', row 1: unknown agent 'who'; give its rows as"),
        ({"hour": [900.0, 1.0]}, TableError, "column 'hour', agent t0, row 1: not after the agent's last recorded row"),
        ({"poured": [float("inf"), 0.0]}, TableError, "column 'poured', agent t0, row 0: empty, NaN or infinite"),
        ({"poured": None}, TableError, r"future: missing column\(s\) poured; the table has tank, hour"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(simulator, changes, error, message):
    asked = {"tank": ["t0", "t0"], "hour": [900.0, 901.0], "poured": [0.0, 0.0], **changes}
    asked = {name: values for name, values in asked.items() if values is not None}
    with pytest.raises(error, match=message):
        simulator.forecast(asked)


def test_levels_outside_of_the_calibrated_ones_are_refused(simulator):
    asked = {"tank": ["t0"], "hour": [900.0], "poured": [0.0]}
    with pytest.raises(ConfigurationError, match="intervals are calibrated from"):
        simulator.forecast(asked, level=0.999)
    simulator = PersonalizedSimulator(simulator.population, simulator.trajectories)
    with pytest.raises(PersimError, match="intervals need held-out tails"):
        simulator.forecast(asked, level=0.9)


@pytest.mark.parametrize("known", [True, False])
def test_forecasts_of_a_regular_table_are_rollouts(dialed, known):
    """From the last recorded state, with the last recorded action before those of the table to come."""
    recorded, schema = dialed.trajectories, dialed.schema
    agent, number = dialed.agents[4], int((recorded.agent == 4).nonzero()[-1])
    final = decode_actions(recorded.final_action[[number]].numpy(), schema)
    first = {name: values[0] for name, values in final.items()}
    if not known:
        # Without a recorded last action, the first one of the future acts from there on.
        recorded = replace(recorded, final_action=torch.full_like(recorded.final_action, torch.nan))
        dialed = PersonalizedSimulator(dialed.population, recorded, None, dialed.calibration)
        first = {"heater": 0.3, "mode": "eco"}
    row = int(recorded.offsets[number + 1]) - 1
    last_time = float(recorded.row_time()[row])
    acts = {"heater": [0.3, 0.8, 0.1], "mode": ["eco", "max", "eco"]}
    columns = {schema.agent: [agent] * 3, schema.time: [last_time + step for step in (1, 2, 3)]}
    answer = dialed.forecast({**columns, **acts}, level=0.9)
    acts = {"heater": [first["heater"], 0.3, 0.8], "mode": [first["mode"], "eco", "max"]}
    rolled = dialed.rollout(agent, recorded.state[row].numpy(), acts, level=0.9)
    name = schema.state[0]
    np.testing.assert_allclose(answer[name].to_numpy(), rolled.mean[1:, 0], rtol=1e-5)
    np.testing.assert_allclose(answer[f"{name}_high"].to_numpy(), rolled.interval[1][1:, 0], rtol=1e-3)
