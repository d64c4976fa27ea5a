"""Closed-form agent factors against the model's own prediction and a plain solve per agent."""

import pytest
import torch

from persim_lightning.adaptation.agent_factors import refit_agent_factors, residual_variance
from persim_lightning.adaptation.designs import agent_designs
from persim_lightning.adaptation.posterior import FactorPosterior, population_prior
from persim_lightning.models.ensemble import select_members
from persim_lightning.types import Transitions
from tests.conftest import random_actions, random_simulator

KINDS = [("cp", 4), ("cp", None), ("tucker", 4), ("tucker", None)]


def transitions(num_actions, rows):
    agent = torch.arange(rows) % 6
    return Transitions(agent, torch.randn(rows, 3), random_actions(num_actions, rows), torch.randn(rows, 3))


@torch.no_grad()
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_prediction_is_design_times_factor(kind, num_actions):
    simulator = random_simulator(kind, num_actions)
    batch = transitions(num_actions, 20)
    designs = agent_designs(simulator, batch)
    factors = simulator.agent_encoder(batch.agent.expand(3, -1)).double()
    shared = (batch.agent.expand(3, -1), batch.state.expand(3, 20, 3), batch.action.expand(3, *batch.action.shape))
    expected = simulator.normalized_delta(*shared)
    torch.testing.assert_close(torch.einsum("mbdr,mbr->mbd", designs, factors).float(), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_much_exact_data_gives_the_true_factors_back(kind, num_actions):
    """Data from the simulator itself, its factors then forgotten; in several batches."""
    simulator = random_simulator(kind, num_actions).double()
    batch = transitions(num_actions, 600)
    batch = Transitions(*(part.double() if part.is_floating_point() else part for part in batch))
    truth = simulator.agent_encoder.deviation.clone()
    batch = batch._replace(delta=simulator(*_expand(batch))[1])
    simulator.agent_encoder.deviation.add_(0.2 * torch.randn_like(truth))
    refit_agent_factors(simulator, lambda: _parts(batch))
    torch.testing.assert_close(simulator.agent_encoder.deviation[1], truth[1], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_residual_variance_is_the_mean_square_error_of_each_coordinate():
    simulator = random_simulator("cp", 4)
    batch = transitions(4, 300)
    error = simulator.normalized_delta(*_expand(batch)) - batch.delta / simulator.delta_rms
    expected = error.square().mean(1).double()
    torch.testing.assert_close(residual_variance(simulator, _parts(batch)), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_refitted_factors_are_the_posterior_means_under_the_prior_and_noise_that_are_kept():
    """What a fit and an adaptation make of the same rows."""
    simulator = random_simulator("cp", 4)
    batch = transitions(4, 300)
    refit_agent_factors(simulator, lambda: _parts(batch))
    again = FactorPosterior(simulator, population_prior(simulator), 6).update(batch)
    torch.testing.assert_close(again.mean.float(), simulator.agent_encoder.table(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_exact_coordinates_count_more_than_noisy_ones():
    """Noise is weighed by coordinate: a tenth of the error of factors that weigh all coordinates alike."""
    simulator = random_simulator("cp", 4)
    batch = transitions(4, 240)
    truth = simulator.agent_encoder.table().clone()
    exact = simulator(*_expand(batch))[1]
    noisy = exact + torch.tensor([0.0, 0.0, 1.0]) * simulator.delta_rms * torch.randn_like(exact)
    simulator.agent_encoder.deviation.add_(0.2 * torch.randn_like(truth))
    refit_agent_factors(simulator, lambda: _parts(batch._replace(delta=noisy)))
    weighted = (simulator.agent_encoder.table()[1] - truth[1]).square().mean().sqrt()
    simulator.noise.copy_(simulator.noise.mean(1, keepdim=True).expand_as(simulator.noise))
    alike = FactorPosterior(simulator, population_prior(simulator), 6).update(batch._replace(delta=noisy)).mean
    assert weighted < 0.1 * (alike[1] - truth[1]).square().mean().sqrt()


@torch.no_grad()
def test_an_agent_without_rows_gets_the_population_mean():
    simulator = random_simulator("cp", 4)
    batch = transitions(4, 300)
    kept = batch.agent != 5
    refit_agent_factors(simulator, lambda: [Transitions(*(part[kept] for part in batch))])
    table = simulator.agent_encoder.table()
    torch.testing.assert_close(table[:, 5], table.mean(1), atol=0.1, rtol=0.1)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_selected_members_predict_as_before(kind, num_actions):
    simulator = random_simulator(kind, num_actions)
    chosen = torch.tensor([2, 0])
    smaller = select_members(simulator, chosen)
    assert smaller.config == simulator.config.with_members(2)
    agents, states, actions = torch.arange(6), torch.randn(6, 3), random_actions(num_actions, 6, 4)
    assert torch.equal(smaller.rollout(agents, states, actions), simulator.rollout(agents, states, actions)[chosen])


def _parts(batch):
    return [Transitions(*(part[i::3] for part in batch)) for i in range(3)]


def _expand(batch):
    rows = len(batch.agent)
    return batch.agent.expand(3, -1), batch.state.expand(3, rows, 3), batch.action.expand(3, *batch.action.shape)
