"""What-ifs in tables of uneven times: rows are predicted at their own times."""

import numpy as np
import pytest

from persim_lightning import PersonalizedSimulator
from persim_lightning.data.tables.events import own_events
from persim_lightning.errors import ConfigurationError, PersimError
from tests.tanks import ROLES, level_after, tanks


@pytest.fixture(scope="module")
def table():
    return tanks(16, 40)


@pytest.fixture(scope="module")
def simulator(table):
    sizes = {"rank": 3, "members": 2, "hidden_width": 16, "epochs": 100, "progress": False}
    return PersonalizedSimulator.fit(table, **ROLES, step=1.0, **sizes)


def rows_of(table, tank):
    own = [row for row, name in enumerate(table["tank"]) if name == tank]
    return {name: [values[row] for row in own] for name, values in table.items()}


def test_recorded_actions_give_predictions_at_recorded_times(simulator, table):
    own = rows_of(table, "t5")
    asked = simulator.counterfactual("t5", own["hour"][20], level=0.9)
    assert asked.recorded.shape == (20, 1)
    np.testing.assert_allclose(asked.recorded[:, 0], own["level"][20:], rtol=1e-6)
    np.testing.assert_allclose(asked.elapsed, np.array(own["hour"][20:]) - own["hour"][20], atol=1e-3)
    np.testing.assert_allclose(asked.mean[:, 0], own["level"][20:], atol=0.15)
    np.testing.assert_allclose(asked.actions["poured"], own["poured"][20:-1], atol=1e-5)
    assert asked.half_width.shape == (20, 1)
    assert asked.to_dict()["step"] == asked.elapsed.tolist()


def test_other_actions_act_at_recorded_rows_and_then_in_base_steps(simulator, table):
    own = rows_of(table, "t5")
    poured = [0.0, 1.0, 0.0, 0.5, 0.0]
    asked = simulator.counterfactual("t5", own["hour"][37], {"poured": poured})
    last = own["hour"][39] - own["hour"][37]
    np.testing.assert_allclose(
        asked.elapsed, [0, own["hour"][38] - own["hour"][37], last, *(last + 1 + np.arange(3))], atol=1e-3
    )
    level, expected = own["level"][37], [own["level"][37]]
    for amount, hours in zip(poured, np.diff(asked.elapsed), strict=True):
        level = level_after(5, level, amount, float(hours))
        expected.append(level)
    np.testing.assert_allclose(asked.mean[:, 0], expected, atol=0.15)
    # The forecast of the same rows.
    hours = [own["hour"][39] + step for step in (1, 2, 3)]
    ahead = simulator.forecast({"tank": ["t5"] * 3, "hour": hours, "poured": [0.5, 0.0, 0.0]})
    from_last = simulator.counterfactual("t5", own["hour"][39], {"poured": [own["poured"][39], 0.5, 0.0]})
    np.testing.assert_allclose(ahead["level"].to_numpy(), from_last.mean[1:, 0], rtol=1e-4)


def test_events_are_recovered_from_spread_ones(simulator, table):
    spread = simulator.trajectories.trajectory(3)
    own = own_events(spread, [0])
    kept = ~spread.inserted.numpy()
    np.testing.assert_allclose(own.action[kept, 0][:-1], rows_of(table, "t11")["poured"][:-1], atol=1e-5)
    assert not own.action[~kept].any()


def test_what_is_wrong_is_said(simulator, table):
    own = rows_of(table, "t5")
    for actions in (None, {"poured": []}):
        with pytest.raises(PersimError, match=r"no actions are recorded after this|'poured' has no values"):
            simulator.counterfactual("t5", own["hour"][39], actions)
    with pytest.raises(ConfigurationError, match="1 recorded moment"):
        simulator.counterfactual("t5", own["hour"][3], episode=1)
