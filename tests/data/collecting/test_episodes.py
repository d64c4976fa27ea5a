"""Episodes of many agents, against one environment stepped alone."""

import gymnasium
import pytest
import torch

from persim_lightning.data.collecting.behavior import RandomPolicy
from persim_lightning.data.collecting.episodes import play
from persim_lightning.envs import get_environment
from persim_lightning.envs.population import sample_population


@pytest.mark.parametrize("name", ["mountaincar", "halfcheetah"])
def test_same_seed_same_episodes(name):
    environment = get_environment(name)
    covariates = sample_population(environment, 5, seed=0)

    def states(seed):
        return play(environment, RandomPolicy(environment), covariates, 5, seed).states

    assert torch.equal(states(1), states(1))
    assert not torch.equal(states(1), states(2))


def test_rewards_stop_where_an_episode_ends():
    """CartPole by random pushes: rewards, lengths and ends as gymnasium's own steps give them."""
    environment = get_environment("cartpole")
    covariates = sample_population(environment, 12, seed=0)
    episodes = play(environment, RandomPolicy(environment), covariates, environment.max_steps, seed=3)
    assert episodes.lengths.unique().numel() > 1
    for row in range(12):
        env = gymnasium.make(environment.gym_id, **environment.covariate_dict(covariates[row].tolist()))
        env.reset(seed=0)
        env.unwrapped.state = episodes.states[row, 0].numpy()
        total, terminated, steps = 0.0, False, 0
        while not terminated:
            _, reward, terminated, _, _ = env.step(int(episodes.actions[row, steps]))
            total, steps = total + reward, steps + 1
        assert episodes.terminated[row]
        assert episodes.lengths[row] == steps
        assert episodes.returns[row] == total


def test_a_cut_episode_is_not_terminated():
    environment = get_environment("mountaincar")
    episodes = play(environment, RandomPolicy(environment), sample_population(environment, 5, seed=0), 7, seed=0)
    assert not episodes.terminated.any()
    assert episodes.returns.tolist() == [-7.0] * 5
