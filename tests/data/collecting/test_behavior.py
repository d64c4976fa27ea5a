"""The behavior policies of the data sets."""

import pytest
import torch

from persim_lightning.data.collecting import behavior
from persim_lightning.data.collecting.behavior import (
    AssignedPolicy,
    EpsilonPolicy,
    RandomPolicy,
    dataset_policy,
    nearest_training_agent,
)
from persim_lightning.data.collecting.episodes import play
from persim_lightning.data.collecting.policies import load_policy
from persim_lightning.envs import ENVIRONMENTS, get_environment
from persim_lightning.envs.population import sample_population


def always(action):
    return lambda states, generator: torch.full((len(states),), action)


def test_random_policy_is_uniform():
    generator = torch.Generator().manual_seed(0)
    discrete = RandomPolicy(get_environment("mountaincar"))(torch.zeros(30_000, 2), generator)
    assert torch.bincount(discrete).tolist() == pytest.approx([10_000] * 3, rel=0.05)
    continuous = RandomPolicy(get_environment("halfcheetah"))(torch.zeros(30_000, 18), generator)
    assert continuous.abs().max() <= 1
    assert continuous.var(0).tolist() == pytest.approx([1 / 3] * 6, rel=0.05)


def test_epsilon_is_the_share_of_random_actions():
    policy = EpsilonPolicy(always(2), get_environment("mountaincar"), epsilon=0.3)
    actions = policy(torch.zeros(30_000, 2), torch.Generator().manual_seed(0))
    assert torch.bincount(actions).tolist() == pytest.approx([3000, 3000, 24_000], rel=0.07)


def test_epsilon_replaces_whole_torque_vectors():
    still = lambda states, generator: torch.zeros(len(states), 6, dtype=torch.float64)  # noqa: E731
    policy = EpsilonPolicy(still, get_environment("halfcheetah"), epsilon=0.4)
    moved = policy(torch.zeros(10_000, 18), torch.Generator().manual_seed(0)) != 0
    assert torch.equal(moved.any(1), moved.all(1))
    assert moved.all(1).double().mean().item() == pytest.approx(0.4, abs=0.02)


def test_each_row_follows_its_own_policy():
    assignment = torch.tensor([2, 0, 2, 4, 0])
    policy = AssignedPolicy([always(action) for action in range(5)], assignment)
    assert policy(torch.zeros(5, 1), torch.Generator()).tolist() == assignment.tolist()
    seen = AssignedPolicy([lambda states, _: states[:, 0]] * 5, assignment)
    assert seen(torch.arange(5.0)[:, None], torch.Generator()).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_policy_training_agents_are_nearest_to_themselves(name):
    environment = get_environment(name)
    own = torch.tensor(environment.policy_training_agents, dtype=torch.float64)
    assert nearest_training_agent(environment, own).tolist() == list(range(len(own)))


def test_distance_is_relative_to_the_range():
    """(7.9, .66): in raw numbers (6, .5) is nearest, by shares of the ranges (10, .675) is."""
    environment = get_environment("cartpole")
    agent = torch.tensor([[7.9, 0.66]], dtype=torch.float64)
    trained = torch.tensor(environment.policy_training_agents, dtype=torch.float64)
    assert torch.cdist(agent, trained).argmin(1).tolist() == [0]
    shares = torch.tensor([16.0, 0.7], dtype=torch.float64)
    assert torch.cdist(agent / shares, trained / shares).argmin(1).tolist() == [3]
    assert nearest_training_agent(environment, agent).tolist() == [3]


def test_several_agents_equally_near_are_a_tie_for_the_first():
    """The default cheetah lies in the middle of the four."""
    environment = get_environment("halfcheetah")
    assert nearest_training_agent(environment, torch.tensor([[1.0, 1.0]], dtype=torch.float64)).tolist() == [0]


def test_pure_data_set_follows_the_nearest_agents_policies():
    environment = get_environment("cartpole")
    covariates = sample_population(environment, 40, seed=0)
    states = torch.randn(40, 4, dtype=torch.float64) * 0.1
    actions = dataset_policy(environment, "pure", covariates)(states, torch.Generator())
    for row, nearest in enumerate(nearest_training_agent(environment, covariates).tolist()):
        policy, _ = load_policy(f"cartpole_{nearest}")
        assert actions[row] == policy(states[row : row + 1], torch.Generator())[0]


@pytest.mark.parametrize(("dataset", "epsilon"), [("pure-eps-20", 0.2), ("pure-eps-40", 0.4)])
def test_mixed_data_sets_act_randomly_as_often_as_their_name_says(dataset, epsilon):
    environment = get_environment("cartpole")
    covariates = torch.tensor([[10.0, 0.5]], dtype=torch.float64).expand(20_000, -1)
    states = torch.randn(20_000, 4, dtype=torch.float64) * 0.1
    generator = torch.Generator().manual_seed(0)
    pure = dataset_policy(environment, "pure", covariates)(states, generator)
    differs = dataset_policy(environment, dataset, covariates)(states, generator) != pure
    # Half of the random actions happen to be the policy's.
    assert differs.double().mean().item() == pytest.approx(epsilon / 2, abs=0.01)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_test_policies_do_the_task(name):
    """Test trajectories come from policies that run well, exploration included: far above random play."""
    environment = get_environment(name)
    covariates = torch.tensor([environment.default_agent], dtype=torch.float64).expand(10, -1)

    def mean_return(policy):
        return play(environment, policy, covariates, 300, seed=5).returns.mean().item()

    margin = {"mountaincar": 80, "cartpole": 60, "halfcheetah": 400}[name]
    assert mean_return(behavior.test_policy(environment)) > mean_return(RandomPolicy(environment)) + margin
