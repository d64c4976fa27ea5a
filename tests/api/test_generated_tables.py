"""Every generated table is fitted, saved, loaded and forecast to finite numbers, or refused in one line."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from persim_lightning import PersonalizedSimulator
from persim_lightning.data.tables.sources import write_table
from persim_lightning.errors import PersimError
from tests.data.tables.generated import Generated, tables

SMALL = {"rank": 2, "members": 1, "hidden_width": 4, "epochs": 1, "progress": False}
OPTIONS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}


def fitted(generated: Generated, folder: Path) -> PersonalizedSimulator | None:
    """The simulator of a table; None if it is refused, which must be in one line."""
    try:
        table = pa.table(generated.columns)
    except (pa.ArrowException, OverflowError):
        # Arrow cannot hold such a column, so that no user brings it.
        return None
    source: object = table
    if generated.medium != "memory":
        source = folder / f"table.{generated.medium}"
        write_table(table, source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PersonalizedSimulator.fit(source, **generated.roles, **SMALL)
    except PersimError as error:
        problem = str(error)
    assert "\n" not in problem
    return None


def check(generated: Generated) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulator = fitted(generated, folder)
        if simulator is None:
            return
        simulator.save(folder / "saved")
        loaded = PersonalizedSimulator.load(folder / "saved")
        assert loaded.schema == simulator.schema
        recorded, schema = simulator.trajectories, simulator.schema
        agent = recorded.agent_ids[int(recorded.agent[-1])]
        row = int(recorded.offsets[-1]) - 1
        actions = recorded.action[:1].repeat_interleave(5, 0).numpy()
        for one in (simulator, loaded):
            predicted = one.rollout(agent, recorded.state[row].numpy(), actions)
            assert np.isfinite(predicted.members).all()
        again = [one.rollout(agent, recorded.state[row].numpy(), actions).members for one in (simulator, loaded)]
        np.testing.assert_array_equal(*again)
        step = schema.step or 1.0
        time = float(recorded.row_time().max())
        asked = {schema.agent: [agent] * 2, schema.time: [time + step, time + 2.5 * step]}
        for name, categories in schema.action_columns:
            asked[name] = [0.5 if categories is None else categories[0]] * 2
        if generated.kinds["clock"] in ("steps", "uneven", "gaps", "twice", "nanoseconds"):
            answer = simulator.forecast(asked)
            assert np.isfinite(np.stack([answer[name].to_numpy() for name in schema.state])).all()


@given(tables())
@settings(max_examples=60, **OPTIONS)
def test_tables_are_fitted_or_refused_in_one_line(generated):
    check(generated)


@pytest.mark.slow
@given(tables())
@settings(max_examples=2000, **OPTIONS)
def test_two_thousand_tables(generated):
    check(generated)
