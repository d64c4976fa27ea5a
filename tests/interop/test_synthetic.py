"""Synthetic trajectories: simulated by the agents they are said to be of, in the form of recorded ones."""

import numpy as np
import pytest
import torch

from persim_lightning import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError
from persim_lightning.interop.simulated_episodes import SimulatedEpisodes
from persim_lightning.interop.synthetic import simulated_trajectories
from tests.rooms import QUICK, ROLES, rooms


def same(one, two):
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("state", "action", "delta", "offsets"))


@pytest.mark.parametrize("kind", ["switched", "dialed"])
def test_trajectories_follow_their_agents_simulators(kind, request):
    simulator = request.getfixturevalue(kind)
    made = simulated_trajectories(simulator, [7, 2], 3, seed=1, max_steps=20, start="any")
    assert made.agent_ids == (7, 2)
    assert made.lengths.tolist() == [21] * 6
    assert not made.terminated.any()
    for row, (start, agent) in enumerate(zip(made.offsets[:-1].tolist(), [7] * 3 + [2] * 3, strict=True)):
        actions = made.action[start : start + 20].numpy()
        expected = simulator.rollout(agent, made.state[start].numpy(), actions).mean
        np.testing.assert_allclose(made.state[start : start + 21].numpy(), expected, rtol=1e-5, err_msg=str(row))
    torch.testing.assert_close(made.delta[:20], made.state[1:21] - made.state[:20])
    assert (made.delta[20] == 0).all()
    assert same(made, simulated_trajectories(simulator, [7, 2], 3, seed=1, max_steps=20, start="any"))
    assert not same(made, simulated_trajectories(simulator, [7, 2], 3, seed=2, max_steps=20, start="any"))
    alone = simulated_trajectories(simulator, [2], 3, seed=1, max_steps=20, start="any")
    assert torch.equal(alone.state, made.state[63:])
    if kind == "dialed":
        indicators = made.action[:20, 1:]
        assert (indicators.sum(1) == 1).all()
        assert ((indicators == 0) | (indicators == 1)).all()


def test_episodes_end_where_they_terminate_and_follow_their_policy(switched):
    made = simulated_trajectories(
        switched,
        [0],
        4,
        policy_of=lambda agent: lambda observed, generator: np.ones(len(observed), dtype=np.int64),
        terminated=lambda states: states[..., 0] > 24,
        start="any",
    )
    assert made.terminated.all()
    lasts = made.state[made.offsets[1:] - 1, 0]
    assert (lasts > 24).all()
    inner = torch.ones(len(made.state), dtype=torch.bool)
    inner[made.offsets[1:] - 1] = False
    assert (made.state[inner, 0][1:] <= 24).sum() >= inner.sum() - 5
    assert (made.action[inner] == 1).all()


def test_a_table_without_rewards_gives_trajectories_without(switched):
    roles = {name: value for name, value in ROLES.items() if name != "reward"}
    fitted = PersonalizedSimulator.fit(rooms(4, 20), action=["heater"], **roles, **{**QUICK, "epochs": 2})
    assert simulated_trajectories(fitted, [1], 2).reward is None
    assert simulated_trajectories(switched, [1], 2).reward is not None
    with pytest.raises(ConfigurationError, match="at least one episode"):
        simulated_trajectories(fitted, [1], 0)


def test_a_step_that_diverges_is_no_transition(switched, monkeypatch):
    real = SimulatedEpisodes.step

    def breaking(self, actions):
        step = real(self, actions)
        broken = self._steps == 5
        return step._replace(diverged=broken, truncated=step.truncated | broken)

    monkeypatch.setattr(SimulatedEpisodes, "step", breaking)
    made = simulated_trajectories(switched, [1], 2, max_steps=9)
    assert made.lengths.tolist() == [5, 5]
    assert (made.delta[:4] != 0).all()
