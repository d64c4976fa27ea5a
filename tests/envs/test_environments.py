"""Stepwise environments against batched functions, populations, and the effect of covariates."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from persim_lightning.envs import ENVIRONMENTS, get_environment
from persim_lightning.envs.population import sample_population
from persim_lightning.errors import ConfigurationError

NAMES = list(ENVIRONMENTS)


def make(name, covariates=None):
    environment = get_environment(name)
    named = {} if covariates is None else dict(zip((c.name for c in environment.covariates), covariates, strict=True))
    return gymnasium.make(environment.gym_id, **named)


def set_state(env, name, state, x=0.0):
    env.reset(seed=0)
    if name == "halfcheetah":
        env.unwrapped.set_state(np.r_[x, state[1:9]], state[9:])
    else:
        env.unwrapped.state = np.array(state)


def random_action(environment, rng):
    return int(rng.integers(environment.num_actions)) if environment.num_actions else rng.uniform(-1, 1, 6)


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_accepts_the_environment(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(make(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_batch_steps_like_the_stepwise_environment(name):
    """States, rewards and terminations of 60 random steps agree for test agents to 1e-6."""
    environment = get_environment(name)
    covariates = torch.tensor(environment.test_agents, dtype=torch.float64)
    rng = np.random.default_rng(0)
    for index, agent in enumerate(environment.test_agents):
        env = make(name, agent)
        batch = environment.make_batch(covariates, seed=4)
        # The state lacks the position along the track, but it influences the last bits.
        x = batch.qpos[index, 0] if name == "halfcheetah" else 0.0
        set_state(env, name, batch.states[index].numpy(), x)
        for _ in range(60):
            action = random_action(environment, rng)
            before = batch.states
            actions = torch.as_tensor(np.stack([action] * len(covariates)))
            after = batch.step(actions)
            observation, reward, terminated, _, _ = env.step(action)
            np.testing.assert_allclose(after[index], observation, atol=1e-6)
            assert environment.reward(before, actions, after)[index] == pytest.approx(reward, abs=1e-6)
            assert bool(environment.terminated(after)[index]) == terminated
            if terminated:
                break


@pytest.mark.parametrize("name", NAMES)
def test_rollouts_follow_the_stepwise_environment(name):
    """Two agents under three plans each; MuJoCo's warm start, which is not in the state, changes the fifth digit."""
    environment = get_environment(name)
    covariates = torch.tensor(environment.test_agents[:2], dtype=torch.float64)
    rng = np.random.default_rng(3)
    batch = environment.make_batch(covariates, seed=1)
    for _ in range(5):
        batch.step(torch.as_tensor(np.stack([random_action(environment, rng)] * 2)))
    states = batch.states
    plans = torch.as_tensor(np.array([[[random_action(environment, rng) for _ in range(8)] for _ in range(3)]] * 2))
    trajectories = environment.rollout(covariates, states, plans)
    assert trajectories.shape == (1, 2, 3, 9, len(environment.state_names))
    for index, agent in enumerate(environment.test_agents[:2]):
        env = make(name, agent)
        for plan in range(3):
            env.reset(seed=0)
            environment.set_state(env.unwrapped, states[index].numpy())
            assert torch.equal(trajectories[0, index, plan, 0], states[index])
            for h in range(8):
                action = plans[index, plan, h].numpy()
                observation = env.step(action if action.ndim else int(action))[0]
                np.testing.assert_allclose(trajectories[0, index, plan, h + 1], observation, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["mountaincar", "cartpole"])
def test_batched_dynamics_from_states_anywhere(name):
    """Also at walls, at the speed limit and beyond the goal, which random actions rarely reach."""
    environment = get_environment(name)
    rng = np.random.default_rng(1)
    scale = {"mountaincar": [1.2, 0.07], "cartpole": [2.4, 2.0, 0.2, 3.0]}[name]
    agent = environment.test_agents[-1]
    env = make(name, agent).unwrapped
    for _ in range(200):
        state = rng.uniform(-1, 1, len(scale)) * scale
        action = random_action(environment, rng)
        set_state(env, name, state)
        if name == "cartpole":
            env.steps_beyond_terminated = None
        batch = environment.make_batch(torch.tensor([agent], dtype=torch.float64), seed=0)
        batch.states = torch.tensor(state)[None]
        np.testing.assert_allclose(batch.step(torch.tensor([action]))[0], env.step(action)[0], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_covariate_changes_the_dynamics(name):
    environment = get_environment(name)
    default = environment.default_agent
    for index, covariate in enumerate(environment.covariates):
        changed = list(default)
        changed[index] = covariate.low
        batch = environment.make_batch(torch.tensor([default, changed], dtype=torch.float64), seed=0)
        if name == "halfcheetah":
            batch.qpos[:], batch.qvel[:] = batch.qpos[0], batch.qvel[0]
        else:
            batch.states = batch.states[[0, 0]]
        rng = np.random.default_rng(2)
        for _ in range(20):
            after = batch.step(torch.as_tensor(np.stack([random_action(environment, rng)] * 2)))
        assert not torch.allclose(after[0], after[1], rtol=0, atol=1e-5), covariate.name


def test_mountain_car_rewards_the_goal():
    environment = get_environment("mountaincar")
    before, after = torch.tensor([[0.45, 0.06], [0.0, 0.0]]), torch.tensor([[0.51, 0.06], [0.0, 0.0]])
    assert environment.reward(before, torch.tensor([2, 2]), after).tolist() == [0.0, -1.0]


def test_half_cheetah_does_not_terminate_and_is_cut_after_1000_steps():
    environment = get_environment("halfcheetah")
    assert not environment.terminated(torch.full((4, 18), 1e6)).any()
    assert make("halfcheetah").spec.max_episode_steps == 1000


@pytest.mark.parametrize("name", NAMES)
def test_population(name):
    environment = get_environment(name)
    population = sample_population(environment, 500, seed=1)
    assert torch.equal(population[:5], torch.tensor(environment.test_agents, dtype=torch.float64))
    for values, covariate in zip(population.T, environment.covariates, strict=True):
        assert values.min() >= covariate.low
        assert values.max() <= covariate.high
        middle = (covariate.low + covariate.high) / 2
        assert values.mean().item() == pytest.approx(middle, abs=0.1 * (covariate.high - covariate.low))
    assert torch.equal(population, sample_population(environment, 500, seed=1))
    assert not torch.equal(population, sample_population(environment, 500, seed=2))


def test_population_smaller_than_the_test_agents():
    with pytest.raises(ConfigurationError, match="num_agents=4"):
        sample_population(get_environment("cartpole"), 4, seed=0)


def test_unknown_environment():
    with pytest.raises(ConfigurationError, match="choose from mountaincar"):
        get_environment("walker")


def test_only_half_cheetah_imports_mujoco():
    """In a fresh interpreter: gymnasium still knows all three environments."""
    code = """
import sys
import gymnasium
from persim_lightning.envs import ENVIRONMENTS, get_environment
gymnasium.make(get_environment("cartpole").gym_id)
assert all(environment.gym_id in gymnasium.registry for environment in ENVIRONMENTS.values())
assert "mujoco" not in sys.modules
gymnasium.make(get_environment("halfcheetah").gym_id)
assert "mujoco" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
