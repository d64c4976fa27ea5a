"""Fitted agents as gymnasium environments: what the API promises, what the simulators say, and learning on them."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import DQN

from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.interop import AGENT_ID
from persim_lightning.interop.gym_env import AgentEnv, AgentVectorEnv
from persim_lightning.interop.simulated_episodes import SimulatedEpisodes
from tests.rooms import TARGET, following


# Advice on ranges, which are here what was recorded, and unknown for states.
@pytest.mark.filterwarnings("error", "ignore:.*Box observation space:UserWarning", "ignore:.*symmetric and normalized")
@pytest.mark.parametrize("kind", ["switched", "dialed"])
def test_gymnasium_finds_nothing_to_complain_of(kind, request):
    environment = gymnasium.make(AGENT_ID, simulator=request.getfixturevalue(kind), agent=3)
    check_env(environment.unwrapped)


@pytest.mark.parametrize("kind", ["switched", "dialed"])
def test_an_episode_is_the_rollout_of_its_agent(kind, request):
    simulator = request.getfixturevalue(kind)
    environment = AgentEnv(simulator, 5, max_steps=12)
    environment.action_space.seed(0)
    start, _ = environment.reset(seed=1)
    seen, rewards, actions, ends = [start], [], [], []
    while not ends or not ends[-1]:
        actions.append(environment.action_space.sample())
        observation, reward, terminated, truncated, _ = environment.step(actions[-1])
        assert not terminated
        seen.append(observation)
        rewards.append(reward)
        ends.append(truncated)
    assert len(actions) == 12
    columns = np.array(actions)
    if kind == "dialed":  # heat, eco, max: the larger indicator counts
        columns = {"heater": columns[:, 0], "mode": np.where(columns[:, 2] > columns[:, 1], "max", "eco").tolist()}
    expected = simulator.rollout(5, start, columns).mean
    np.testing.assert_allclose(np.array(seen), expected, rtol=1e-5)
    np.testing.assert_allclose(rewards, -np.abs(expected[1:, 0] - TARGET), atol=0.4)


def test_a_batch_is_many_episodes(switched):
    """Rows step like single environments, and begin anew in the step after their end."""
    batch = gymnasium.make_vec(
        AGENT_ID, num_envs=4, vectorization_mode="vector_entry_point", simulator=switched, agent=2, max_steps=3
    )
    assert isinstance(batch.unwrapped, AgentVectorEnv)
    start, _ = batch.reset(seed=0)
    assert start.shape == (4, 1)
    acts = np.array([0, 1, 1, 0])
    states = [start]
    for step in range(3):
        seen, rewards, terminated, truncated, _ = batch.step(acts)
        states.append(seen)
        assert truncated.all() == (step == 2)
        assert not terminated.any()
    for row, act in enumerate(acts):
        expected = switched.rollout(2, start[row], [act] * 3).mean
        np.testing.assert_allclose(np.array(states)[:, row], expected, rtol=1e-5)
    again, rewards, terminated, truncated, _ = batch.step(acts)
    np.testing.assert_array_equal(again, start)  # the agent was first recorded in one state
    assert (rewards == 0).all()
    assert not (terminated | truncated).any()


def test_what_is_asked_for_decides_ends_starts_rewards_and_members(switched):
    hot = AgentEnv(
        switched,
        0,
        start="any",
        terminated=lambda states: states[..., 0] > 20,
        reward=lambda states, actions, following: 0 * following[..., 0] + 7,
    )
    starts = {float(hot.reset(seed=seed)[0][0]) for seed in range(5)}
    assert len(starts) > 1
    for _ in range(30):
        observation, reward, terminated, _, _ = hot.step(1)
        assert reward == 7
        assert terminated == (observation[0] > 20)
        if terminated:
            break
    assert terminated
    members = switched.rollout(0, [15.0], [1]).members[:, -1]
    for member in (0, 2):
        one = SimulatedEpisodes(switched, 0, member=member)
        one.restart(np.zeros(1, dtype=int), np.random.default_rng(0))
        start = one.observe()[0]
        one.step(np.ones(1))
        np.testing.assert_allclose(one.observe()[0], switched.rollout(0, start, [1]).members[member, -1], rtol=1e-6)
    assert members.std() > 0
    drawn = SimulatedEpisodes(switched, 0, 64, member="random")
    drawn.restart(np.arange(64), np.random.default_rng(0))
    drawn.step(np.ones(64))
    assert len(np.unique(drawn.observe())) == 3


def test_a_simulator_that_blows_up_ends_the_episode_and_says_so(switched, monkeypatch):
    wild = SimulatedEpisodes(switched, 0, 2)
    wild.restart(np.arange(2), np.random.default_rng(0))
    breaking = torch.tensor([[1.0], [torch.inf]])
    monkeypatch.setattr(wild._dynamics, "step", lambda states, actions: states * breaking)
    step = wild.step(np.ones(2))
    assert step.diverged.tolist() == [False, True]
    assert step.truncated.tolist() == [False, True]
    assert step.reward[1] == 0
    assert np.isfinite(wild.observe()).all()


@pytest.mark.slow
def test_a_policy_that_learned_on_a_simulator_works_in_the_real_room(switched):
    """DQN sees simulated room 4 alone, and keeps the real one warm; others cool at other rates."""
    torch.manual_seed(0)
    model = DQN(
        "MlpPolicy",
        AgentEnv(switched, 4, max_steps=20, start="any"),
        learning_rate=3e-3,
        learning_starts=200,
        target_update_interval=100,
        exploration_fraction=0.5,
        gamma=0.5,
        train_freq=1,
        policy_kwargs={"net_arch": [64]},
        seed=0,
    )
    model.learn(4000)

    def comfort(act):
        temperature, total = 15.0, 0.0
        for _ in range(40):
            temperature = following(4, temperature, act(temperature))
            total -= abs(temperature - TARGET)
        return total

    learned = comfort(lambda temperature: int(model.predict(np.array([temperature]), deterministic=True)[0]))
    rng = np.random.default_rng(0)
    random = np.mean([comfort(lambda _: rng.integers(2)) for _ in range(20)])
    best = comfort(lambda temperature: temperature < TARGET - 0.5)
    assert learned > random + 0.7 * (best - random)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent": 99}, "unknown agent 99"),
        ({"start": "anywhere"}, "start 'anywhere'"),
        ({"member": 3}, "member 3"),
        ({"max_steps": 0}, "max_steps 0"),
    ],
)
def test_bad_options_are_named(switched, options, message):
    with pytest.raises(PersimError, match=message):
        AgentEnv(switched, **{"agent": 0, **options})


def test_rewards_must_be_known(tmp_path, switched):
    switched.save(tmp_path / "rooms")
    (tmp_path / "rooms/outcomes.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="has no rewards"):
        AgentEnv(tmp_path / "rooms", 0)
    AgentEnv(tmp_path / "rooms", 0, reward=lambda states, actions, following: following[..., 0])


@pytest.mark.parametrize("action", [2, -1, 0.5])
def test_unknown_actions_are_refused(switched, action):
    environment = AgentEnv(switched, 0)
    environment.reset(seed=0)
    with pytest.raises(ConfigurationError, match="unknown action, expected 0 … 1"):
        environment.step(action)
