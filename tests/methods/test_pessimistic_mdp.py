"""MOReL's model and the pessimistic MDP on it, as gymnasium and as stable-baselines3 see it."""

from dataclasses import replace
from itertools import combinations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError, TableError
from persim_lightning.methods.morel.dynamics_ensemble import DynamicsEnsemble, fit_dynamics_ensemble
from persim_lightning.methods.morel.learner import _trust_region
from persim_lightning.methods.morel.pessimistic_mdp import Pessimism, PessimisticMDP, pessimism_of
from persim_lightning.models.scaling import Scales
from tests.methods.test_morel import POINT_MASS, recorded

CART_POLE, MOUNTAIN_CAR = get_environment("cartpole"), get_environment("mountaincar")
LENIENT = Pessimism(threshold=float("inf"), halt_reward=-100.0)


def ensemble_of(environment, members=3, width=16, seed=0):
    """Untrained members."""
    schema = environment.schema
    scales = Scales(schema.state_dim, schema.action_dim, schema.num_actions)
    scales.state_mean.fill_(0.1)
    scales.state_std.fill_(2.0)
    scales.delta_rms.copy_(torch.linspace(0.5, 1.5, schema.state_dim))
    scales.action_mean.fill_(0.3)
    scales.action_std.fill_(0.7)
    torch.manual_seed(seed)
    return DynamicsEnsemble(members, width, scales).requires_grad_(False)


class Drift:
    """Members that agree, or not: member m moves every state by `amounts[m]`."""

    def __init__(self, amounts):
        self.amounts, self.members = amounts, len(amounts)
        self.scales = Scales(amounts.shape[-1], 1, 2)

    def deltas(self, states, actions):
        return self.amounts[:, None].expand(-1, len(states), -1)


def mdp_of(environment, *amounts, starts=None, pessimism=LENIENT, count=4):
    moves = torch.tensor(amounts, dtype=torch.float32)
    begin = torch.zeros(1, moves.shape[1]) if starts is None else torch.tensor(starts)
    mdp = PessimisticMDP(Drift(moves), environment, begin, pessimism, count)
    mdp.reset(seed=0)
    return mdp


@pytest.mark.parametrize("environment", [CART_POLE, POINT_MASS], ids=["discrete", "continuous"])
def test_disagreement_equals_a_loop_over_rows_members_and_pairs(environment):
    ensemble = ensemble_of(environment)
    dim = len(environment.state_names)
    states = torch.randn(30, dim)
    actions = torch.randint(2, (30,)) if environment.num_actions else torch.randn(30, 2)
    expected = []
    for state, action in zip(states, actions, strict=True):
        outputs = []
        for member in range(3):
            encoded = torch.eye(2)[action] if environment.num_actions else (action - 0.3) / 0.7
            values = torch.cat(((state - 0.1) / 2, encoded))
            for number, layer in enumerate(ensemble.net.layers):
                values = values @ layer.weight[member] + layer.bias[member, 0]
                values = values.relu() if number < 2 else values
            outputs.append(values)
        expected.append(max(float((one - two).norm()) for one, two in combinations(outputs, 2)))
    torch.testing.assert_close(ensemble.disagreement(states, actions), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_training_lowers_disagreement_where_data_are_and_not_elsewhere():
    trajectories = recorded(POINT_MASS, episodes=20)
    ensemble = fit_dynamics_ensemble(trajectories, members=4, width=64, batch_size=128, steps=1200, seed=0)
    rows, _ = trajectories.split_rows(0.0)
    states, actions = trajectories.state[rows], trajectories.action[rows]
    predicted = ensemble.deltas(states, actions) * ensemble.scales.delta_rms
    error = (predicted - trajectories.delta[rows]).square().mean() / trajectories.delta[rows].square().mean()
    assert error < 1e-3
    inside = ensemble.disagreement(states, actions)
    far = ensemble.disagreement(states + 10 * trajectories.state.std(0), actions)
    assert far.median() > 5 * inside.median()
    pessimism = pessimism_of(inside, trajectories.reward[rows], beta=5.0, kappa=1.0, discount=0.99)
    assert (inside <= pessimism.threshold).double().mean() > 0.98
    assert (far > pessimism.threshold).double().mean() > 0.5


def test_a_table_without_transitions_is_refused():
    lonely = recorded(POINT_MASS, episodes=1)
    lonely = replace(lonely, offsets=torch.tensor([0, 1]), state=lonely.state[:1], action=lonely.action[:1])
    with pytest.raises(TableError, match="two rows"):
        fit_dynamics_ensemble(lonely, members=2, width=8, batch_size=8, steps=1, seed=0)


def test_threshold_and_price_of_halting():
    disagreement = torch.tensor([1.0, 3.0])
    pessimism = pessimism_of(disagreement, torch.tensor([-1.0, 0.0]), beta=2.0, kappa=1.0, discount=0.9)
    assert pessimism.threshold == pytest.approx(2 + 2 * 1)
    assert pessimism.halt_reward == pytest.approx(-20)
    # Positive rewards: a terminated episode is worth zero from then on, and HALT is worse than that, too.
    assert pessimism_of(disagreement, torch.ones(2), 0.0, 0.5, 0.9).halt_reward == pytest.approx(-5)


def test_halting_is_worse_than_going_on_for_ever():
    """MountainCar: to pay 1 a step for ever, the worst that can happen, beats HALT at any step."""
    pessimism = pessimism_of(torch.zeros(5), torch.full((5,), -1.0), beta=5.0, kappa=0.1, discount=0.99)
    mdp = mdp_of(MOUNTAIN_CAR, [0.0, 0.0], [1.0, 0.0], pessimism=pessimism)
    _, halting, terminated, _, _ = mdp.step(np.zeros(4))
    assert terminated.all()
    going_on = mdp_of(MOUNTAIN_CAR, [0.0, 0.0], [0.0, 0.0], pessimism=pessimism)
    rewards, ended = [], np.zeros(4, dtype=bool)
    while not ended.any():
        _, reward, terminated, truncated, _ = going_on.step(np.zeros(4))
        rewards.append(reward[0])
        ended = terminated | truncated
    assert len(rewards) == 500
    assert sum(reward * 0.99**t for t, reward in enumerate(rewards)) > halting[0]
    assert halting[0] < -1 / (1 - 0.99)


def test_spaces_and_mode():
    discrete, continuous = mdp_of(CART_POLE, [0.0] * 4, [0.0] * 4), mdp_of(POINT_MASS, [0.0] * 4, [0.0] * 4)
    assert discrete.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert discrete.single_action_space == gymnasium.spaces.Discrete(2)
    assert continuous.single_action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    for mdp in (discrete, continuous):
        observations, info = mdp.reset(seed=3)
        assert observations in mdp.observation_space
        assert info == {}
        observations, rewards, terminated, truncated, info = mdp.step(mdp.action_space.sample())
        assert observations in mdp.observation_space
        assert rewards.dtype == np.float64
        assert terminated.dtype == truncated.dtype == bool
        assert rewards.shape == terminated.shape == truncated.shape == info["halted"].shape == (4,)
        assert "final_obs" not in info
    with pytest.raises(ConfigurationError, match="one seed"):
        discrete.reset(seed=[1, 2, 3, 4])


def test_unknown_pairs_halt_and_begin_anew():
    """Members that disagree by 5, against a threshold of 4 and one of 6."""
    mdp = mdp_of(CART_POLE, [0.01] * 4, [2.51] * 4, starts=[[0.1, 0.2, 0.0, 0.3]], pessimism=Pessimism(4.0, -7.0))
    observations, rewards, terminated, truncated, info = mdp.step(np.zeros(4))
    assert info["halted"].all()
    assert terminated.all()
    assert not truncated.any()
    assert (rewards == -7).all()
    np.testing.assert_allclose(info["final_obs"], [[0.1, 0.2, 0.0, 0.3]] * 4)
    assert info["_final_obs"].all()
    np.testing.assert_allclose(observations, [[0.1, 0.2, 0.0, 0.3]] * 4)
    known = mdp_of(CART_POLE, [0.01] * 4, [2.51] * 4, pessimism=Pessimism(6.0, -7.0))
    assert not known.step(np.zeros(4))[4]["halted"].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_predictions_that_are_not_finite_halt(value):
    mdp = mdp_of(CART_POLE, [0.0] * 4, [0.0, value, 0.0, 0.0])
    observations, rewards, terminated, _, info = mdp.step(np.zeros(4))
    assert info["halted"].all()
    assert terminated.all()
    assert (rewards == -100).all()
    assert np.isfinite(observations).all()
    assert np.isfinite(info["final_obs"]).all()


def test_episodes_terminate_as_the_environment_does_with_its_reward():
    mdp = mdp_of(CART_POLE, [1.0, 0, 0, 0], [1.0, 0, 0, 0])
    for step in (1, 2):
        observations, rewards, terminated, _, info = mdp.step(np.ones(4))
        assert not terminated.any()
        np.testing.assert_allclose(observations[:, 0], step)
    observations, rewards, terminated, truncated, info = mdp.step(np.ones(4))
    assert terminated.all()
    assert not truncated.any()
    assert not info["halted"].any()
    assert (rewards == 1).all()
    np.testing.assert_allclose(info["final_obs"][:, 0], 3)
    np.testing.assert_allclose(observations, 0)


def test_episodes_are_cut_after_the_environments_steps_each_from_its_own_start():
    short = replace(CART_POLE, max_steps=3)
    # Rows that begin at 2 leave the track in their first step; those that begin at -0.5 never do.
    mdp = mdp_of(short, [0.5, 0, 0, 0], [0.5, 0, 0, 0], starts=[[2.0, 0, 0, 0], [-0.5, 0, 0, 0]], count=50)
    age, position = np.zeros(50, dtype=int), mdp._observe()[:, 0]
    for _ in range(9):
        observations, _, terminated, truncated, info = mdp.step(np.zeros(50))
        age += 1
        position = position + 0.5
        np.testing.assert_array_equal(terminated, position > 2.4)
        np.testing.assert_array_equal(truncated, (age == 3) & ~terminated)
        ended = terminated | truncated
        np.testing.assert_array_equal(info.get("_final_obs", np.zeros(50, dtype=bool)), ended)
        if ended.any():
            np.testing.assert_allclose(info["final_obs"][ended][:, 0], position[ended])
        np.testing.assert_allclose(observations[~ended][:, 0], position[~ended])
        assert np.isin(observations[ended][:, 0], [2.0, -0.5]).all()
        age[ended], position = 0, observations[:, 0]


def test_rows_follow_one_member_for_an_episode_from_all_starts():
    mdp = mdp_of(CART_POLE, [0.01, 0, 0, 0], [-0.01, 0, 0, 0], starts=[[0.0] * 4, [0.0, 1.0, 0, 0]], count=200)
    begin, _ = mdp.reset(seed=1)
    assert 50 < (begin[:, 1] == 1).sum() < 150
    for _ in range(5):
        after, *_ = mdp.step(np.zeros(200))
    direction = np.sign(after[:, 0])
    np.testing.assert_allclose(after[:, 0], 0.05 * direction, rtol=1e-5)
    assert 50 < (direction == 1).sum() < 150
    again = mdp_of(CART_POLE, [0.01, 0, 0, 0], [-0.01, 0, 0, 0], starts=[[0.0] * 4, [0.0, 1.0, 0, 0]], count=200)
    np.testing.assert_array_equal(again.reset(seed=1)[0], begin)


def test_what_was_observed_stays_as_it_was():
    mdp = mdp_of(CART_POLE, [1.0, 0, 0, 0], [1.0, 0, 0, 0])
    seen = [mdp.step(np.zeros(4))[0] for _ in range(3)]
    assert [float(observations[0, 0]) for observations in seen] == [1.0, 2.0, 0.0]


def test_large_amounts_count_as_the_ends_of_their_range():
    mdp = PessimisticMDP(ensemble_of(POINT_MASS), POINT_MASS, torch.zeros(1, 4), LENIENT, 2)
    mdp.reset(seed=0)
    far = mdp.step(np.array([[5.0, -5.0]] * 2))
    mdp.reset(seed=0)
    near = mdp.step(np.array([[1.0, -1.0]] * 2))
    np.testing.assert_array_equal(far[0], near[0])


def test_the_adapter_tells_stable_baselines_of_ends_and_cuts():
    trust_region = _trust_region()
    short = replace(CART_POLE, max_steps=2)
    mdp = mdp_of(short, [0.5, 0, 0, 0], [0.5, 0, 0, 0], starts=[[2.0, 0, 0, 0], [-0.5, 0, 0, 0]], count=30)
    mean, std = np.array([0.5, 0, 0, 0]), np.full(4, 2.0)
    adapter = trust_region.StandardizedEpisodes(mdp, mean, std, 0.1)
    adapter.seed(4)
    begin = adapter.reset()
    assert begin.dtype == np.float32
    adapter.seed(4)
    np.testing.assert_array_equal(adapter.reset(), begin)
    doomed = begin[:, 0] == 0.75
    np.testing.assert_allclose(begin[~doomed][:, 0], -0.5)
    observations, rewards, ended, infos = adapter.step(np.zeros(30))
    np.testing.assert_array_equal(ended, doomed)
    np.testing.assert_allclose(rewards, 0.1)
    for row, info in enumerate(infos):
        if doomed[row]:
            assert info["TimeLimit.truncated"] is False
            np.testing.assert_allclose(info["terminal_observation"], [1.0, 0, 0, 0])
            assert observations[row, 0] in (0.75, -0.5)
        else:
            assert info == {}
            assert observations[row, 0] == -0.25
    _, _, ended, infos = adapter.step(np.zeros(30))
    assert ended[~doomed].all()
    for row in np.flatnonzero(~doomed):
        assert infos[row]["TimeLimit.truncated"] is True
        np.testing.assert_allclose(infos[row]["terminal_observation"], [0.0, 0, 0, 0])
    assert adapter.env_is_wrapped(gymnasium.Wrapper) == [False] * 30
