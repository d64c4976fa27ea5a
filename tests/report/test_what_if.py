"""What the page computes is what the simulators say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from persim_lightning import PersonalizedSimulator
from persim_lightning.report.page import _asset
from persim_lightning.report.what_if import model_data, what_if_data
from tests.conftest import random_actions, random_simulator
from tests.tanks import ROLES, tanks


@pytest.fixture
def script(opened, tmp_path):
    """Runs a function body in a page that holds the panel's script but no panel."""
    path = tmp_path / "script.html"
    path.write_text(f"<link rel='icon' href='data:,'><script>{_asset('what_if.js')}</script>")

    def run(body, *values):
        return opened(path).execute_script(body, *values)

    return run


@pytest.mark.parametrize(
    ("kind", "num_actions", "wall", "integrator"),
    [
        ("cp", 3, torch.inf, "rk4"),
        ("cp", None, 0.6, "euler"),
        ("tucker", 3, 0.6, "euler"),
        ("tucker", None, torch.inf, "euler"),
    ],
)
def test_rollouts_in_the_page_are_those_of_torch(kind, num_actions, wall, integrator, script):
    """Angles, walls, discrete and continuous actions, both factorizations, both integrators."""
    simulator = random_simulator(kind, num_actions, wall)
    simulator.config = replace(simulator.config, integrator=integrator)
    torch.manual_seed(0)
    agents, start, actions = torch.tensor([4, 1]), torch.tensor([0.3, -0.2, 0.5]), random_actions(num_actions, 6)
    found = script(
        """
        const model = unpackModel(arguments[0]), [members, agents, rank] = model.factors.shape;
        return Array.from({ length: members }, (_, m) => {
          const first = (m * agents + 1) * rank;
          return rollout(model, m, model.factors.data.subarray(first, first + rank), arguments[1], arguments[2]);
        });
        """,
        json.loads(json.dumps(model_data(simulator, agents))),
        start.tolist(),
        actions.tolist(),
    )
    expected = simulator.rollout(torch.tensor([1]), start[None], actions[None])[:, 0].numpy()
    assert np.abs(np.diff(expected, axis=1)).max() > 0.1
    np.testing.assert_allclose(np.array(found, dtype=float), expected, rtol=2e-4, atol=2e-4)


CHOICES = {
    "recorded": {"kind": "recorded", "first": [], "second": [], "every": 1, "seed": 0},
    "hold": {"kind": "hold", "first": [1, 0], "second": [], "every": 1, "seed": 0},
    "switch": {"kind": "switch", "first": [0, 1], "second": [1, 0], "every": 2, "seed": 0},
    "random": {"kind": "random", "first": [], "second": [], "every": 1, "seed": 5},
}


@pytest.mark.parametrize("pattern", list(CHOICES))
@pytest.mark.parametrize("kind", ["switched", "dialed"])
def test_answers_have_the_mean_and_the_intervals_of_the_python_api(kind, pattern, script, request):
    simulator = request.getfixturevalue(kind)
    data = json.loads(json.dumps(what_if_data(simulator, (7, 2), 0.9)))
    choice = {"agent": 1, "row": 3, "steps": 12, "pattern": CHOICES[pattern]}
    found = script("return answer(prepare(arguments[0]), arguments[1]);", data, choice)
    state = simulator.trajectories.state.view(16, 50, 1)[2]
    assert len(found["mean"]) == 13
    np.testing.assert_allclose(found["recorded"], state[3:16].numpy())
    expected = simulator.rollout(2, state[3].numpy(), np.array(found["actions"]), level=0.9)
    np.testing.assert_allclose(found["mean"], expected.mean, rtol=1e-4)
    np.testing.assert_allclose(found["halfWidth"], expected.half_width, rtol=2e-2, atol=1e-4)
    acts = list(zip(*expected.actions.values(), strict=True))
    if pattern == "recorded":
        own = simulator.trajectories.action.view(16, 50, -1)[2, 3:15]
        np.testing.assert_allclose(np.array(found["actions"]).reshape(12, -1), own.numpy())
    elif pattern == "hold":
        assert set(acts) == ({("on",)} if kind == "switched" else {(1.0, "eco")})
    elif pattern == "switch":
        first, second = (("off",), ("on",)) if kind == "switched" else ((0.0, "max"), (1.0, "eco"))
        assert acts == [first, first, second, second] * 3
    else:
        assert len(set(acts)) > 1
        again = script("return answer(prepare(arguments[0]), arguments[1]).actions;", data, choice)
        assert again == found["actions"]


def test_recorded_actions_end_with_the_record(script, switched):
    data = json.loads(json.dumps(what_if_data(switched, (0,), 0.9)))
    choice = {"agent": 0, "row": 45, "steps": 30, "pattern": CHOICES["recorded"]}
    found = script("return answer(prepare(arguments[0]), arguments[1]);", data, choice)
    assert (len(found["actions"]), len(found["recorded"])) == (4, 5)


def test_rows_of_uneven_tables_are_shown_at_their_times(script):
    """Recorded actions act from row to row, others for one base step each; missing states are not drawn."""
    simulator = PersonalizedSimulator.fit(
        tanks(12, 20, missing=0.2), **ROLES, step=1.0, rank=2, members=2, hidden_width=8, epochs=40, progress=False
    )
    data = json.loads(json.dumps(what_if_data(simulator, ("t3",), 0.9)))
    number = simulator.trajectories.agent_ids.index("t3")
    recorded = simulator.trajectories.trajectory(number)
    found = script(
        "return answer(prepare(arguments[0]), arguments[1]);",
        data,
        {"agent": 0, "row": 0, "steps": 200, "pattern": CHOICES["recorded"]},
    )
    elapsed = np.r_[0, np.cumsum(recorded.duration[:-1].numpy())]
    np.testing.assert_allclose(found["elapsed"], elapsed, rtol=1e-5)
    np.testing.assert_allclose(found["recordedElapsed"], elapsed, rtol=1e-5)
    shown = np.array(found["recorded"], dtype=float)
    np.testing.assert_array_equal(np.isfinite(shown), recorded.observed.numpy())
    asked = simulator.counterfactual("t3", 0.0, level=0.9)
    kept = ~recorded.inserted.numpy()
    np.testing.assert_allclose(np.array(found["mean"])[kept], asked.mean, rtol=1e-2)
    np.testing.assert_allclose(np.array(found["halfWidth"])[kept], asked.half_width, rtol=5e-2, atol=1e-3)
    held = {"agent": 0, "row": 0, "steps": 4, "pattern": {**CHOICES["hold"], "first": [0.0]}}
    found = script("return answer(prepare(arguments[0]), arguments[1]);", data, held)
    assert found["elapsed"] == [0, 1, 2, 3, 4]
    assert max(found["recordedElapsed"]) <= 4
