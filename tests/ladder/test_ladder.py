"""The choice between simple and neural dynamics."""

import json
import warnings

import numpy as np
import pytest
import torch

from persim_lightning import PersonalizedSimulator
from persim_lightning.data.chains import rollout_chains
from persim_lightning.errors import ConfigurationError, PersimWarning
from persim_lightning.evaluation.prediction import EpisodeWindows
from persim_lightning.ladder.backtest import backtest, errors, state_scale
from persim_lightning.ladder.choice import Choice
from persim_lightning.ladder.choose import _apportion, backtest_tail
from persim_lightning.ladder.neural import NEURAL, budgets, fit_budgets
from tests.tanks import ROLES as TANK_ROLES
from tests.tanks import tanks

ROLES = {"agent": "who", "time": "t", "state": ["x"], "action": ["a"]}
QUICK = {"rank": 2, "members": 2, "hidden_width": 8, "progress": False}


def table(agents, rows, change, start=lambda rng: rng.normal(), noise=0.0, seed=0):
    """A state that changes by `change(agent, x, a, rng)`, recorded with noise."""
    rng = np.random.default_rng(seed)
    columns = {"who": [], "t": [], "x": [], "a": []}
    for agent in range(agents):
        x = start(rng)
        for t in range(rows):
            a = rng.normal()
            for name, value in zip(columns, (agent, t, x + noise * rng.normal(), a), strict=True):
                columns[name].append(value)
            x = x + change(agent, x, a, rng)
    return columns


def affine(agent, x, a, rng):
    return 0.3 * a - (0.1 + 0.05 * agent) * x


def curved(agent, x, a, rng):
    return 0.3 * np.sin(2 * x) + 0.2 * a


def walk(agent, x, a, rng):
    return 0.3 * rng.normal()


def test_an_affine_system_is_predicted_exactly_by_its_own_rung():
    fitted = PersonalizedSimulator.fit(table(8, 30, affine), **ROLES, **QUICK, epochs=3)
    assert fitted.choice.members == {"affine model of each agent": 2}
    assert fitted.choice.verdict() == "better than the last value for 'x'"
    assert max(fitted.choice.combined) < 1e-4
    predicted = fitted.rollout(5, [1.0], {"a": [0.5, 0.0, 0.0]}).mean[:, 0]
    expected = [1.0]
    for a in (0.5, 0.0, 0.0):
        expected.append(expected[-1] + affine(5, expected[-1], a, None))
    np.testing.assert_allclose(predicted, expected, atol=1e-4)


def test_a_curved_system_is_left_to_the_network():
    fitted = PersonalizedSimulator.fit(table(10, 80, curved), **ROLES, **QUICK, epochs=150)
    assert NEURAL in fitted.choice.members
    found = {name: row[0] for name, row in fitted.choice.errors.items()}
    assert found[NEURAL] < 0.5 * min(value for name, value in found.items() if name != NEURAL)


def test_a_random_walk_is_no_better_than_its_last_value_and_that_is_said():
    with pytest.warns(PersimWarning, match="no better than the last value for any state"):
        fitted = PersonalizedSimulator.fit(table(12, 12, walk), **ROLES, **QUICK, epochs=100)
    assert fitted.choice.verdict() == "no better than the last value for 'x'"
    last = fitted.choice.errors["persistence"][0]
    assert fitted.choice.combined[0] < 1.15 * last
    # The network alone learned noise.
    alone = PersonalizedSimulator.fit(table(12, 12, walk), **ROLES, **QUICK, epochs=100, models="neural")
    assert alone.choice is None


def test_rollouts_never_leave_the_world():
    explosive = table(6, 14, lambda agent, x, a, rng: 0.25 * x, start=lambda rng: rng.uniform(0.5, 1.0))
    fitted = PersonalizedSimulator.fit(explosive, **ROLES, **QUICK, epochs=50)
    recorded = np.array(explosive["x"])
    width = recorded.max() - recorded.min()
    far = fitted.rollout(3, [recorded.max()], {"a": np.zeros(200)}).members
    assert np.isfinite(far).all()
    assert far.max() <= recorded.max() + width + 1e-3
    planned = fitted.population.personalize(3)
    states = torch.full((2, 1, 1), float(recorded.max()))
    for _ in range(50):
        states = planned.step(states, torch.zeros(1, 1))
    assert float(states.max()) <= recorded.max() + width + 1e-3


def test_choice_is_saved_and_a_damaged_one_is_refused(tmp_path):
    fitted = PersonalizedSimulator.fit(table(6, 12, affine, noise=0.3), **ROLES, **QUICK, epochs=5)
    fitted.save(tmp_path)
    loaded = PersonalizedSimulator.load(tmp_path)
    assert loaded.choice == fitted.choice
    one, two = (each.rollout(1, [0.5], {"a": [0.1] * 5}, level=0.9) for each in (fitted, loaded))
    np.testing.assert_allclose(two.mean, one.mean, rtol=1e-6)
    np.testing.assert_allclose(two.half_width, one.half_width, rtol=1e-6)
    assert loaded.adapt(table(1, 5, affine, seed=1) | {"who": [99] * 5}).choice == fitted.choice
    (tmp_path / "choice.json").write_text(json.dumps({"state": ["x"]}))
    with pytest.raises(ConfigurationError, match=r"choice.json is damaged \(KeyError\)"):
        PersonalizedSimulator.load(tmp_path)


def test_uneven_incomplete_tables_have_rungs_too():
    fitted = PersonalizedSimulator.fit(tanks(12, 25, missing=0.2), **TANK_ROLES, **QUICK, step=1.0, epochs=3)
    assert fitted.choice.members == {"affine model of each agent": 2}
    assert fitted.choice.combined[0] < 1e-3


def test_backtests_compare_rollouts_of_tails_from_several_origins():
    fitted = PersonalizedSimulator.fit(table(5, 31, walk, seed=2), **ROLES, **QUICK, epochs=1, models="neural")
    rows = fitted.trajectories
    found = backtest(fitted.population, rows, 0.3)
    # Tails begin at rows 21, 24 and 27 of 0 … 30.
    assert len(found.target) >= 5 * (9 + 6 + 3)
    assert int(found.observed.sum()) == 5 * (9 + 6 + 3)
    windows = EpisodeWindows.cut(rows, torch.full((5,), 21), 9)
    mean = fitted.population.simulator.rollout(windows.agent, windows.start, windows.action)[:, :, 1:].mean(0)
    torch.testing.assert_close(found.predicted[:45].float(), mean.flatten(0, 1))
    scale = state_scale(rows)
    expected = ((found.predicted - found.target)[found.observed].square().mean()).sqrt() / scale[0]
    assert float(errors(found.predicted, found, scale)[0]) == pytest.approx(float(expected))


def test_members_are_divided_by_error():
    assert _apportion({"a": 1.0, "b": 1.0}, 5) in ({"a": 3, "b": 2}, {"a": 2, "b": 3})
    assert _apportion({"a": 0.1, "b": 1.0, "c": 0.12}, 5) == {"a": 3, "c": 2}
    assert _apportion({"a": 0.0, "b": 1.0}, 4) == {"a": 4}
    assert sum(_apportion({str(name): 1 + name / 10 for name in range(9)}, 5).values()) == 5


def test_short_trajectories_have_longer_tails():
    long = PersonalizedSimulator.fit(table(3, 100, affine), **ROLES, **QUICK, epochs=1).trajectories
    short = PersonalizedSimulator.fit(table(3, 20, affine), **ROLES, **QUICK, epochs=1).trajectories
    assert backtest_tail(long, 0.1) == 0.1
    assert backtest_tail(short, 0.1) == backtest_tail(long, 0.0) == 0.34


def test_trainings_follow_the_amount_of_data_and_stop_where_longer_ones_are_worse():
    assert list(budgets(180, 4000).values()) == [100, 400]
    assert list(budgets(1380, 4000).values()) == [400, 1600]
    assert list(budgets(14_000, 4000).values()) == [1600, None]
    assert list(budgets(250_000, 4000).values()) == [None]
    asked = []

    def fit(tail, steps):
        asked.append(steps)
        return steps

    found = fit_budgets(fit, {"a": 100, "b": 400, "c": None}, 0.3, lambda name, _: {"a": 1.0, "b": 1.2, "c": 0.1}[name])
    assert (asked, found) == ([100, 400], {"a": 100, "b": 400})


def test_rollout_chains_overlap_and_end_with_their_trajectory():
    rows = PersonalizedSimulator.fit(table(2, 6, walk), **ROLES, **QUICK, epochs=1, models="neural").trajectories
    starts, lengths = rollout_chains(rows, rows.split_rows(0.0)[0], 3)
    assert starts.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert lengths.tolist() == [3, 3, 3, 2, 1] * 2


def test_verdicts_name_the_states():
    choice = Choice(("x", "y"), 0.3, {"persistence": (1.0, 1.0)}, {NEURAL: 2}, (0.5, 1.0))
    assert choice.verdict() == "better than the last value for 1 of 2 states; no better for 'y'"
    assert choice.composition() == "2 of 2 neural"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice.warn()
    headings, rows = choice.table()
    assert headings == ("model", "x", "y")
    assert rows[-1] == ["chosen ensemble", "0.5", "1"]
