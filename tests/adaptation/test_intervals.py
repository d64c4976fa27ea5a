"""Draws of factors against rollouts one by one, and conformal quantiles against counting."""

import pytest
import torch

from persim_lightning.adaptation.extend import extend_population
from persim_lightning.adaptation.intervals import LEVELS, Calibration, drawn_factors, sampled_rollouts, spread
from persim_lightning.models.population import FittedPopulation
from persim_lightning.types import Schema
from tests.conftest import random_actions, random_simulator


@pytest.fixture
def population():
    simulator = random_simulator("cp", 4)
    return FittedPopulation(simulator, Schema(("x", "y", "z"), ("a",), 4), range(6))


def rows(population, agents):
    mean = population.simulator.agent_encoder.table().detach().double()[:, agents]
    return mean, 0.1 * torch.randn(len(agents), 3), random_actions(4, len(agents), 5)


def test_no_uncertainty_is_the_plain_rollout(population):
    agents = torch.tensor([4, 1])
    mean, states, actions = rows(population, agents)
    certain = torch.zeros(3, 2, 4, 4, dtype=torch.float64)
    drawn = sampled_rollouts(population, drawn_factors(mean, certain, draws=4), states, actions)
    plain = population.simulator.rollout(agents, states, actions)
    assert drawn.shape == (12, 2, 6, 3)
    torch.testing.assert_close(drawn, plain.repeat_interleave(4, dim=0), atol=1e-5, rtol=1e-4)


def test_agents_may_have_any_name(population):
    """Draws are rolled out as factors, not as further agents with invented names."""
    named = FittedPopulation(population.simulator, population.schema, ["draw 0", "draw 1", "b", "c", "d", "e"])
    mean, states, actions = rows(named, torch.tensor([0]))
    drawn = drawn_factors(mean, torch.zeros(3, 1, 4, 4, dtype=torch.float64), draws=2)
    assert sampled_rollouts(named, drawn, states, actions).shape == (6, 1, 6, 3)


def test_draws_have_the_mean_and_covariance_of_the_beliefs(population):
    """One step is linear in the factor: its moments are those of design times factor."""
    agents = torch.tensor([2])
    mean, states, actions = rows(population, agents)
    root = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    root = 0.1 * root
    covariance = root @ root.mT
    factors = drawn_factors(mean, root, draws=4000)
    drawn = sampled_rollouts(population, factors, states, actions[:, :1])[:, 0, 1].unflatten(0, (3, -1))
    units = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    basis = extend_population(population, list("abcd"), units)
    steps = basis.simulator.rollout(torch.arange(6, 10), states.expand(4, 3), actions[:, :1].expand(4, 1))
    design = (steps[:, :, 1] - steps[:, :, 0]).double()
    for member in range(3):
        told = design[member].mT @ covariance[member, 0] @ design[member]
        torch.testing.assert_close(torch.cov(drawn[member].double().mT), told, rtol=0.1, atol=0.05 * float(told.max()))


def test_factors_are_the_conformal_quantiles_and_short_horizons_lend_theirs():
    errors = torch.arange(1.0, 20.0)[:, None, None].repeat(1, 3, 2)
    errors[:, :, 1] = 0
    valid = torch.ones(19, 3, dtype=torch.bool)
    valid[9:, 2] = False
    calibration = Calibration.of(errors, torch.full_like(errors, 2.0), valid)
    # Of 19 scores the ceil(20·level)-th smallest: 10, 16, 18, 19, halved by the spread.
    expected = torch.tensor([5.0, 8.0, 9.0, 9.5])
    for h in range(3):
        torch.testing.assert_close(calibration.factors[:, h, 0], expected)
        assert (calibration.factors[:, h, 1] == 0).all()
    widths = calibration.half_width(torch.ones(1, 5, 2), 0.85)
    torch.testing.assert_close(widths[0, :, 0], torch.full((5,), 8.5))
    assert calibration.levels == LEVELS


def test_spread_has_a_floor():
    rollouts = torch.zeros(4, 1, 3, 2)
    rollouts[:, :, 1:, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    assert spread(rollouts, torch.tensor([1.0, 5.0])).tolist() == [[[1.0, pytest.approx(0.005)]] * 2]


def test_beyond_the_calibrated_horizon_intervals_are_never_narrower_than_a_normal_distributions():
    errors = torch.full((30, 2, 2), 0.1)
    errors[..., 1] = 5.0
    calibration = Calibration.of(errors, torch.ones_like(errors), torch.ones(30, 2, dtype=torch.bool))
    widths = calibration.half_width(torch.ones(1, 4, 2), 0.9)[0]
    torch.testing.assert_close(widths[:, 0], torch.tensor([0.1, 0.1, 1.6449, 1.6449]), atol=1e-4, rtol=0)
    torch.testing.assert_close(widths[:, 1], torch.full((4,), 5.0))
