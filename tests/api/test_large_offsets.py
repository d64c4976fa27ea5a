"""Columns whose values are large beside their changes, such as map coordinates in meters."""

import json

import gymnasium
import numpy as np
import pytest
import torch

import persim_lightning.interop  # noqa: F401
from persim_lightning import PersonalizedSimulator
from persim_lightning.interop.onnx_export import export_onnx

OFFSET = 5e6 + 0.123


def drift(offset, seed=0):
    rng = np.random.default_rng(seed)
    rows = {name: [] for name in ("ship", "t", "x", "y", "push")}
    for ship in range(12):
        state = rng.normal(0, 5, 2)
        for t in range(40):
            push = rng.uniform(-1, 1)
            for name, value in zip(rows, (ship, t, state[0] + offset, state[1], push), strict=True):
                rows[name].append(value)
            state = state + np.array([(0.5 + 0.1 * ship) * push - 0.05 * state[0], 0.1 * state[0] - 0.05 * state[1]])
    return rows


def fitted(offset):
    return PersonalizedSimulator.fit(
        drift(offset), agent="ship", time="t", state=["x", "y"], action=["push"], rank=3, epochs=40, progress=False
    )


@pytest.fixture(scope="module")
def near():
    return fitted(0.0)


@pytest.fixture(scope="module")
def far():
    return fitted(OFFSET)


def test_an_offset_does_not_change_predictions(near, far):
    assert (near.schema.double, far.schema.double) == (False, True)
    actions = {"push": [1.0, -1.0] * 5}
    one, two = (
        simulator.rollout(3, [offset + 1, 0.0], actions, level=0.9)
        for simulator, offset in ((near, 0.0), (far, OFFSET))
    )
    # Single precision would round every state to half a meter.
    np.testing.assert_allclose(two.mean - [OFFSET, 0], one.mean, atol=0.1)
    assert np.abs(np.diff(two.mean[:, 0])).min() > 0
    np.testing.assert_allclose(two.half_width, one.half_width, atol=0.2)
    future = {"ship": [3, 3], "t": [40, 41], "push": [1.0, 1.0]}
    ahead = [np.array(simulator.forecast(future)["x"].to_pylist()) for simulator in (near, far)]
    np.testing.assert_allclose(ahead[1] - OFFSET, ahead[0], atol=0.1)


def test_the_contracted_simulator_equals_the_plain_path(far):
    states = torch.tensor([[OFFSET + 1, 0.0], [OFFSET - 3, 1.0]], dtype=torch.float64)
    actions = torch.tensor([[[0.3], [-0.2]], [[1.0], [0.0]]])
    plain = far.population.simulator.rollout(torch.tensor([3, 3]), states, actions)
    contracted = far.population.personalize(3).rollout(states, actions)
    assert contracted.dtype == torch.float64
    torch.testing.assert_close(contracted, plain, rtol=0, atol=1e-4)


def test_saved_adapted_planned_and_played(far, tmp_path):
    far.save(tmp_path)
    loaded = PersonalizedSimulator.load(tmp_path)
    assert loaded.trajectories.state.dtype == torch.float64
    asked = 3, [OFFSET + 1, 0.0], {"push": [1.0]}
    np.testing.assert_array_equal(loaded.rollout(*asked).members, far.rollout(*asked).members)
    twin = drift(OFFSET)
    twin["ship"] = [ship + 100 for ship in twin["ship"]]
    adapted = far.adapt(twin)
    np.testing.assert_allclose(adapted.rollout(103, *asked[1:]).mean, far.rollout(*asked).mean, atol=0.05)
    planned = far.plan(3, [OFFSET + 1, 0.0], objective=lambda s, a, after: -(after[..., 0] - OFFSET).abs(), horizon=3)
    assert -1.5 < planned.value < 0
    env = gymnasium.make("persim/Agent-v0", simulator=far, agent=3, reward=lambda s, a, after: after[..., 0])
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.step(env.action_space.sample())[0].dtype == np.float64


def test_the_onnx_model_takes_double_states(far, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(export_onnx(far.population, 3, tmp_path / "ship.onnx"))
    states = np.tile([[OFFSET + 1, 0.0]], (5, 1, 1))
    after = session.run(None, {"state": states, "action": np.array([[1.0]], dtype=np.float32)})[0]
    expected = far.rollout(3, [OFFSET + 1, 0.0], {"push": [1.0]}).members[:, 1]
    np.testing.assert_allclose(after[:, 0], expected, rtol=0, atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["schema"])["double"]
