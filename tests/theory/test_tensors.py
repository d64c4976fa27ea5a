"""Dynamics tensors against single steps of environments and simulators."""

import pytest
import torch

from persim_lightning.envs import ENVIRONMENTS, get_environment
from persim_lightning.envs.population import sample_population
from persim_lightning.errors import ConfigurationError
from persim_lightning.models.population import FittedPopulation
from persim_lightning.theory import tensors
from persim_lightning.theory.tensors import coordinate_scales, learned_tensor, merged, state_grid, true_tensor
from persim_lightning.types import Schema
from tests.conftest import random_actions, random_simulator


@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_true_tensor_is_one_step_of_every_agent(name, monkeypatch):
    monkeypatch.setattr(tensors, "_ROWS", 7)
    environment = get_environment(name)
    covariates = sample_population(environment, 6, seed=1)[[0, 5]]
    states = environment.make_batch(covariates[:1].expand(3, -1), 4).states
    discrete = environment.num_actions is not None
    actions = torch.arange(2) if discrete else 2 * torch.rand(2, len(environment.action_names)).double() - 1
    tensor = true_tensor(environment, covariates, states, actions)
    assert tensor.shape == (2, 3, 2, len(environment.state_names))
    for n in range(2):
        for a in range(2):
            batch = environment.make_batch(covariates[n : n + 1].expand(3, -1), 4)
            before = batch.states.clone()
            after = batch.step(actions[a : a + 1].expand(3, *actions.shape[1:]))
            torch.testing.assert_close(torch.from_numpy(tensor[n, :, a]), (after - before).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["cp", "tucker"])
@pytest.mark.parametrize("num_actions", [4, None])
@pytest.mark.parametrize("wall", [torch.inf, 1.0])
def test_learned_tensor_is_the_mean_of_the_members_steps(kind, num_actions, wall):
    simulator = random_simulator(kind, num_actions, wall)
    schema = Schema(("x", "y", "z"), ("a",) if num_actions else ("a", "b"), num_actions)
    personalized = FittedPopulation(simulator, schema, tuple("abcdef"))
    agents, states = torch.tensor([4, 1]), torch.randn(5, 3).clamp(-0.9, 0.9)
    actions = torch.arange(4) if num_actions else random_actions(None, 3)
    tensor = learned_tensor(personalized, agents, states, actions)
    with torch.no_grad():
        for n, agent in enumerate(agents):
            for a, action in enumerate(actions):
                taken = action.expand(3, 5, *action.shape)
                free = simulator(agent.expand(3, 5), states.expand(3, -1, -1), taken).mean(0)
                after = simulator.walls(states + free)
                torch.testing.assert_close(
                    torch.from_numpy(tensor[n, :, a]).float(), after - states, atol=1e-5, rtol=1e-5
                )
    if wall == 1.0:
        without = learned_tensor(personalized, agents, states, actions, walls=False)
        assert abs(without - tensor).max() > 0.1


def test_merging_keeps_coordinates_within_states():
    tensor = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5).numpy()
    assert merged(tensor).shape == (2, 15, 4)
    assert merged(tensor)[1, 2 * 5 + 3, 1] == tensor[1, 2, 1, 3]


def test_scales_are_root_mean_squares_and_never_zero():
    tensor = torch.zeros(2, 3, 4, 2).numpy()
    tensor[..., 1] = -3
    assert coordinate_scales(tensor).tolist() == [1, 3]


def test_grids_span_the_range_and_refuse_to_explode():
    grid = state_grid(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0]), 5)
    assert grid.shape == (25, 2)
    assert grid.amin(0).tolist() == [-1, 0]
    assert grid.amax(0).tolist() == [1, 4]
    with pytest.raises(ConfigurationError, match="18 state coordinates"):
        state_grid(torch.zeros(18), torch.ones(18), 5)
