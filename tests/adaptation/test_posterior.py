"""Beliefs about agents' factors against textbook formulas, and populations that grow."""

import numpy as np
import pytest
import torch

from persim_lightning.adaptation.covariate_map import CovariateMap
from persim_lightning.adaptation.designs import agent_designs
from persim_lightning.adaptation.extend import extend_population
from persim_lightning.adaptation.posterior import FactorPosterior, FactorPrior, population_prior
from persim_lightning.errors import ConfigurationError, SimulatorFileError
from persim_lightning.models.population import FittedPopulation
from persim_lightning.types import Schema, Transitions
from tests.conftest import random_actions, random_simulator

KINDS = [("cp", 4), ("cp", None), ("tucker", 4), ("tucker", None)]


def simulator_of(kind, num_actions):
    simulator = random_simulator(kind, num_actions)
    simulator.noise.copy_(torch.tensor([0.1, 0.4, 0.2])[:, None] * torch.tensor([1.0, 3.0, 0.5]))
    return simulator


def transitions(num_actions, rows, agents=2):
    agent = torch.arange(rows) % agents
    return Transitions(agent, torch.randn(rows, 3), random_actions(num_actions, rows), torch.randn(rows, 3))


def prior_of(simulator, agents=2):
    mean, covariance = population_prior(simulator)
    return FactorPrior(mean.expand(-1, agents, -1), covariance)


@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_posterior_is_that_of_the_textbook(kind, num_actions):
    """Conditioning the joint Gaussian of factor and data, a member and an agent at a time."""
    simulator = simulator_of(kind, num_actions)
    batch, prior = transitions(num_actions, 9), prior_of(simulator)
    posterior = FactorPosterior(simulator, prior, 2).update(batch)
    designs = agent_designs(simulator, batch)
    targets = (batch.delta / simulator.delta_rms).double()
    for member in range(3):
        for agent in range(2):
            own = batch.agent == agent
            design, target = designs[member, own].flatten(0, 1), targets[own].flatten()
            covariance, mean = prior.covariance[member], prior.mean[member, agent]
            noise = torch.diag(simulator.noise[member].double().repeat(int(own.sum())))
            gain = covariance @ design.T @ torch.linalg.inv(design @ covariance @ design.T + noise)
            expected = mean + gain @ (target - design @ mean)
            torch.testing.assert_close(posterior.mean[member, agent], expected, rtol=1e-5, atol=1e-6)
            left = covariance - gain @ design @ covariance
            torch.testing.assert_close(covariance_of(posterior)[member, agent], left, rtol=1e-4, atol=1e-6)


def covariance_of(posterior):
    return posterior.root @ posterior.root.mT


def test_row_by_row_is_all_at_once():
    simulator, batch = simulator_of("cp", 4), transitions(4, 11)
    whole = FactorPosterior(simulator, prior_of(simulator), 2).update(batch)
    stepwise = FactorPosterior(simulator, prior_of(simulator), 2)
    for row in torch.randperm(11):
        stepwise.update(Transitions(*(part[row : row + 1] for part in batch)))
    torch.testing.assert_close(stepwise.mean, whole.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(covariance_of(stepwise), covariance_of(whole), rtol=1e-4, atol=1e-6)


def test_without_rows_the_posterior_is_the_prior_and_many_rows_outweigh_it():
    simulator = simulator_of("cp", 4)
    prior = prior_of(simulator)
    posterior = FactorPosterior(simulator, prior, 2)
    torch.testing.assert_close(posterior.mean, prior.mean)
    torch.testing.assert_close(covariance_of(posterior)[:, 0], prior.covariance)
    truth = simulator.agent_encoder.table()[:, 3:5].detach()
    batch = transitions(4, 4000)
    members = batch.agent.expand(3, -1) + 3
    exact = simulator(members, batch.state.expand(3, -1, 3), batch.action.expand(3, -1)).detach()
    simulator.noise.fill_(1e-6)
    for member in range(3):
        posterior = FactorPosterior(simulator, prior, 2).update(batch._replace(delta=exact[member]))
        torch.testing.assert_close(posterior.mean[member].float(), truth[member], atol=2e-3, rtol=2e-3)


def test_covariances_stay_positive_where_rows_determine_one_direction_only():
    """Precisions of 1e12 beside those of the prior: their inverse is not positive definite, the covariance must be."""
    simulator = simulator_of("cp", 4)
    simulator.noise.fill_(1e-14)
    batch = transitions(4, 400, agents=1)
    same = Transitions(batch.agent, batch.state[:1].expand(400, 3), batch.action[:1].expand(400), batch.delta)
    posterior = FactorPosterior(simulator, prior_of(simulator, agents=1), 1).update(same)
    assert bool(posterior.root.isfinite().all())
    assert float(torch.linalg.eigvalsh(covariance_of(posterior)).min()) > -1e-12
    design = agent_designs(simulator, same)[:, 0]
    spread = (design[:, :, None] @ posterior.root[:, :1]).norm(dim=-1)
    assert float(spread.max()) < 1e-5


def test_an_older_simulator_cannot_be_adapted():
    simulator = random_simulator("cp", 4)
    with pytest.raises(SimulatorFileError, match="fit it again"):
        FactorPosterior(simulator, prior_of(simulator), 2)


def test_factors_that_are_polynomials_of_covariates_are_told_and_the_rest_is_their_covariance():
    rng = np.random.default_rng(0)
    covariates = rng.uniform(1, 2, size=(200, 2))
    told = np.stack([covariates[:, 0] * covariates[:, 1], covariates[:, 0] ** 2], axis=1)
    noise = rng.normal(size=(2, 200, 2)) * np.array([0.1, 0.001])
    factors = torch.from_numpy(told + noise)
    given = CovariateMap(covariates, factors)
    unseen = rng.uniform(1, 2, size=(50, 2))
    prior = given(unseen)
    expected = torch.from_numpy(np.stack([unseen[:, 0] * unseen[:, 1], unseen[:, 0] ** 2], axis=1))
    assert prior.mean.shape == (2, 50, 2)
    assert float((prior.mean - expected).abs().amax((0, 1))[1]) < 2e-3
    spread = prior.covariance.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(spread, torch.tensor([[0.1, 0.001]] * 2).double(), rtol=0.15, atol=0)


def test_reciprocals_are_told_by_logarithms():
    rng = np.random.default_rng(0)
    length = rng.uniform(0.15, 0.85, size=(300, 1))
    given = CovariateMap(length, torch.from_numpy(1 / length)[None])
    unseen = np.array([[0.15], [0.4], [0.85]])
    np.testing.assert_allclose(given(unseen).mean[0].numpy(), 1 / unseen, rtol=2e-3)
    with pytest.raises(ConfigurationError, match="must be positive"):
        given(np.array([[0.0]]))


def test_a_map_needs_agents_that_differ():
    factors = torch.randn(2, 12, 3)
    with pytest.raises(ConfigurationError, match="at least 10 fitted agents, not 4"):
        CovariateMap(np.ones((4, 1)), factors[:, :4])
    with pytest.raises(ConfigurationError, match="no covariate differs"):
        CovariateMap(np.ones((12, 1)), factors)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_a_population_grows_and_nobody_changes(kind, num_actions):
    simulator = simulator_of(kind, num_actions)
    action = ("a", "b") if num_actions is None else ("a",)
    schema = Schema(("x", "y", "z"), action, num_actions)
    population = FittedPopulation(simulator, schema, tuple("abcdef"))
    copy = simulator.agent_encoder.table()[:, 2:3]
    larger = extend_population(population, ["new"], copy)
    plan, state = random_actions(num_actions, 5), np.array([0.1, 0.2, 0.3])
    for agent, twin in (("new", "c"), ("f", "f")):
        np.testing.assert_allclose(
            larger.rollout(agent, state, plan), population.rollout(twin, state, plan), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(ConfigurationError, match="'a' is in the population already"):
        extend_population(population, ["a"], copy)
