"""Roles of columns: inputs that nobody decides, covariates as priors, bounds that predictions keep."""

from __future__ import annotations

import gymnasium
import numpy as np
import pandas
import pytest
import torch

import persim_lightning.interop  # noqa: F401  (registers the environment)
from persim_lightning import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError

QUICK = {"rank": 3, "members": 2, "hidden_width": 16, "epochs": 60, "progress": False}
ROLES = {"agent": "who", "time": "t", "state": ["level"]}


def fed(count=14, rows=30, seed=0):
    """A level that meals raise and insulin lowers; the effect of insulin depends on weight and sex."""
    rng = np.random.default_rng(seed)
    names = ("who", "t", "level", "insulin", "meal", "kind", "weight", "sex")
    table = {name: [] for name in names}
    for agent in range(count):
        level, weight, sex = 5.0, 50.0 + 4 * agent, "mf"[agent % 2]
        for row in range(rows):
            insulin, meal, kind = rng.uniform(0, 1), rng.uniform(0, 2), str(rng.choice(["slow", "fast"]))
            values = (agent, row, level, insulin, meal, kind, weight, sex)
            for name, value in zip(names, values, strict=True):
                table[name].append(value)
            level = max(0.0, following(level, insulin, meal, kind, weight, sex))
    return table


def following(level, insulin, meal, kind, weight, sex):
    strength = 100 / weight * (1.2 if sex == "m" else 0.8)
    return level + 0.5 * meal * (1.0 if kind == "fast" else 0.5) - 0.6 * strength * insulin - 0.1 * (level - 4)


@pytest.fixture(scope="module")
def simulator():
    return PersonalizedSimulator.fit(
        fed(), **ROLES, action=["insulin"], inputs=["meal", "kind"], covariates=["weight", "sex"], **QUICK
    )


MEALS = {"meal": [1.0, 0.0, 2.0, 0.5], "kind": ["slow", "fast", "fast", "slow"]}


def test_no_planner_chooses_inputs(simulator):
    plan = simulator.plan(3, {"level": 6.0}, lambda s, a, n: -n[..., 0], horizon=4, inputs=MEALS)
    assert list(plan.actions) == ["insulin", "meal", "kind"]
    assert {name: plan.actions[name] for name in MEALS} == MEALS
    # The lowest level takes the most insulin, whatever is eaten.
    assert min(plan.actions["insulin"]) > 0.8
    with pytest.raises(ConfigurationError, match=r"inputs: 'meal' is missing; give 4 values of \['meal', 'kind'\]"):
        simulator.plan(3, {"level": 6.0}, lambda s, a, n: -n[..., 0], horizon=4)
    with pytest.raises(ConfigurationError, match="inputs: 'meal' has 4 values, but the horizon is 5"):
        simulator.plan(3, {"level": 6.0}, lambda s, a, n: -n[..., 0], horizon=5, inputs=MEALS)
    with pytest.raises(ConfigurationError, match="inputs: 'weather' is not an input"):
        simulator.plan(3, {"level": 6.0}, lambda s, a, n: -n[..., 0], horizon=4, inputs={**MEALS, "weather": [1] * 4})


def test_inputs_are_given_like_actions_to_rollouts(simulator):
    acts = {"insulin": [0.2] * 4, **MEALS}
    predicted = simulator.rollout(2, {"level": 6.0}, acts).mean[:, 0]
    level, truth = 6.0, [6.0]
    for row in range(4):
        level = following(level, 0.2, MEALS["meal"][row], MEALS["kind"][row], 58.0, "m")
        truth.append(level)
    np.testing.assert_allclose(predicted, truth, atol=0.25)
    assert simulator.counterfactual(2, 5, {name: [values[0]] for name, values in acts.items()}).members.shape[1] == 2


def test_environments_take_inputs_and_offer_only_what_is_decided(simulator):
    given = {"meal": [1.0] * 6, "kind": ["fast"] * 6}
    env = gymnasium.make(
        "persim/Agent-v0", simulator=simulator, agent=1, max_steps=6, inputs=given, reward=lambda s, a, n: n[..., 0]
    )
    assert env.action_space.shape == (1,)
    state, _ = env.reset(seed=0)
    after = env.step(np.array([0.5], dtype=np.float32))[0]
    expected = simulator.rollout(1, state, {"insulin": [0.5], "meal": [1.0], "kind": ["fast"]}).mean[1]
    np.testing.assert_allclose(after, expected, rtol=1e-4)
    with pytest.raises(ConfigurationError, match="inputs: 'meal' is missing"):
        gymnasium.make("persim/Agent-v0", simulator=simulator, agent=1, reward=lambda s, a, n: n[..., 0])


def test_the_covariates_of_new_agents_are_their_prior(simulator, tmp_path):
    """One row each: what is known of them is their weight and sex."""
    new = pandas.DataFrame(
        {"who": [100, 101], "t": 0, "level": 5.0, "insulin": 0.5, "meal": 1.0, "kind": "fast"}
    ).assign(weight=[52.0, 104.0], sex=["m", "f"])
    acts = {"insulin": [1.0] * 3, "meal": [1.0] * 3, "kind": ["fast"] * 3}
    simulator.save(tmp_path)
    for known in (simulator, PersonalizedSimulator.load(tmp_path)):
        larger = known.adapt(new)
        light, heavy = (larger.rollout(agent, [6.0], acts).mean[1, 0] for agent in (100, 101))
        assert light == pytest.approx(following(6.0, 1.0, 1.0, "fast", 52.0, "m"), abs=0.3)
        assert heavy == pytest.approx(following(6.0, 1.0, 1.0, "fast", 104.0, "f"), abs=0.3)
        blind = known.adapt(new.drop(columns=["weight", "sex"]))
        same = [blind.rollout(agent, [6.0], acts).mean[1, 0] for agent in (100, 101)]
        assert same[0] == pytest.approx(same[1], abs=1e-4)


def test_predictions_and_intervals_keep_bounds(tmp_path):
    options = {"action": ["insulin"], "inputs": ["meal", "kind"], "bounds": {"level": (0, None)}}
    bounded = PersonalizedSimulator.fit(fed(), **ROLES, **options, **QUICK)
    bounded.save(tmp_path)
    for simulator in (bounded, PersonalizedSimulator.load(tmp_path)):
        acts = {"insulin": [1.0] * 8, "meal": [0.0] * 8, "kind": ["slow"] * 8}
        predicted = simulator.rollout(0, [1.0], acts, level=0.9)
        assert predicted.members.min() == 0
        low, high = predicted.interval
        assert low.min() == 0
        assert (high > low)[1:].all()
        personalized = simulator.population.personalize(0)
        step = personalized.step(torch.full((2, 1, 1), 0.1), torch.from_numpy(_encoded(simulator, acts))[:1])
        assert float(step.min()) == 0
        asked = {"who": [0] * 4, "t": [30, 31, 32, 33], **{name: values[:4] for name, values in acts.items()}}
        answer = simulator.forecast(asked, level=0.95)
        assert min(answer["level_low"].to_pylist()) >= 0
    for bounds, message in (
        ({"meal": (0, 1)}, "bounds: 'meal' is not among the state columns"),
        ({"level": (2, 1)}, "bounds: the limits of 'level' are not ascending: 2, 1"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            PersonalizedSimulator.fit(fed(), **ROLES, **{**options, "bounds": bounds}, **QUICK)


def _encoded(simulator, acts):
    from persim_lightning.api.inputs import action_array

    return action_array(acts, simulator.schema)


def test_a_series_is_a_state_by_its_names():
    table = {**fed(6, 12), "other": np.arange(72.0).tolist()}
    roles = {**ROLES, "state": ["level", "other"]}
    simulator = PersonalizedSimulator.fit(table, **roles, action=["insulin"], **{**QUICK, "epochs": 1})
    acts = {"insulin": pandas.Series([0.1, 0.2])}
    state = pandas.Series({"other": 3.0, "level": 5.0})
    np.testing.assert_array_equal(simulator.rollout(0, state, acts).mean[0], [5.0, 3.0])
    assert simulator.plan(0, state, lambda s, a, n: n[..., 0], horizon=np.int64(2)).actions["insulin"]


def test_agents_with_single_rows_are_reported():
    table = fed(6, 12)
    for name, value in zip(table, (77, 0, 5.0, 0.1, 0.1, "slow", 60.0, "m"), strict=True):
        table[name].append(value)
    with pytest.warns(UserWarning, match=r"table: 1 agent\(s\) have no two consecutive rows \(77\)"):
        simulator = PersonalizedSimulator.fit(table, **ROLES, action=["insulin"], **{**QUICK, "epochs": 2})
    assert simulator.rollout(77, [5.0], {"insulin": [0.2]}).mean.shape == (2, 1)
