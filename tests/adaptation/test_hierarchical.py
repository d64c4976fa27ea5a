"""Affine dynamics of all agents in closed form, against slow and obvious ways to the same numbers."""

import numpy as np
import pytest
import torch

from persim_lightning.adaptation.hierarchical import fit_affine
from persim_lightning.models.affine import affine_simulator
from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.types import Chains, Statistics, Transitions

AGENTS, ROWS, NOISE = 300, 12, 0.3
MEAN, SPREAD = np.array([0.5, -0.4, 1.0]), np.array([0.6, 0.1, 0.0])
UNIT = Statistics(*(torch.tensor([value]) for value in (0.0, 1.0, -9.0, 9.0, 1.0, 0.0, 1.0)))


def simulator(integrator="euler"):
    config = SimulatorConfig(AGENTS, 1, 1, None, 1, Ranks(1, 1, 1), integrator=integrator)
    return affine_simulator(config, UNIT)


@pytest.fixture(scope="module")
def drawn():
    """Coefficients of agents from a normal distribution, and noisy changes under them."""
    rng = np.random.default_rng(0)
    coefficients = MEAN + SPREAD * rng.normal(size=(AGENTS, 3))
    state, action = rng.normal(size=(2, AGENTS, ROWS))
    features = np.stack((np.ones_like(state), state, action), axis=-1)
    change = (features * coefficients[:, None]).sum(-1) + NOISE * rng.normal(size=state.shape)
    agent = torch.arange(AGENTS).repeat_interleave(ROWS)
    column = [torch.from_numpy(value.reshape(-1, 1)).float() for value in (state, action, change)]
    return Transitions(agent, *column), features.reshape(-1, 3), change.ravel(), coefficients


def as_chains(batch):
    """The same changes as chains of one step."""
    return Chains(
        agent=batch.agent,
        state=batch.state,
        action=batch.action[:, None],
        duration=torch.ones(len(batch.agent), 1),
        target=(batch.state + batch.delta)[:, None],
        observed=torch.ones(len(batch.agent), 1, 1, dtype=torch.bool),
        scored=torch.ones(len(batch.agent), 1, 1, dtype=torch.bool),
    )


def fitted(batches, varying, integrator="euler"):
    found = simulator(integrator)
    fit_affine(found, lambda: iter(batches), torch.tensor(varying))
    return found


def test_one_model_of_all_is_ridge_regression(drawn):
    batch, features, change, _ = drawn
    found = fitted([batch], [False, False, False])
    expected = np.linalg.solve(features.T @ features + np.diag([0, 1, 1]), features.T @ change)
    np.testing.assert_allclose(found.agent_encoder.shared[0, 0], expected, rtol=1e-4)
    assert not found.agent_encoder.deviation.any()
    assert found.noise.item() == pytest.approx(np.mean((change - features @ expected) ** 2), rel=1e-3)


def test_mean_spread_and_noise_are_found_and_agents_are_shrunk_as_far_as_they_should_be(drawn):
    batch, features, change, truth = drawn
    found = fitted([batch], [True, True, False])
    mean = found.agent_encoder.shared[0, 0].numpy()
    np.testing.assert_allclose(mean, truth.mean(0), atol=0.03)
    variance = found.prior_covariance[0].diagonal().numpy()
    np.testing.assert_allclose(np.sqrt(variance), truth.std(0), atol=0.03)
    assert found.noise.item() == pytest.approx(NOISE**2, rel=0.1)
    # The posterior mean of every agent, one by one.
    by_agent = features.reshape(AGENTS, ROWS, 3), change.reshape(AGENTS, ROWS)
    noise, precision = found.noise.item(), np.diag(1 / variance)
    expected = [
        np.linalg.solve(x.T @ x / noise + precision, x.T @ y / noise + precision @ mean)
        for x, y in zip(*by_agent, strict=True)
    ]
    table = found.agent_encoder.table()[0].numpy()
    np.testing.assert_allclose(table, expected, atol=0.02)
    # Shrinking pays: without it, every agent has a regression of its own.
    alone = [np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(*by_agent, strict=True)]
    assert np.mean((table - truth) ** 2) < 0.7 * np.mean((np.array(alone) - truth) ** 2)


@pytest.mark.parametrize("varying", [[False] * 3, [True, False, False], [True] * 3])
def test_chains_of_one_step_give_what_transitions_give(drawn, varying):
    batch = drawn[0]
    one, two = fitted([batch], varying), fitted([as_chains(batch)], varying)
    torch.testing.assert_close(two.agent_encoder.table(), one.agent_encoder.table(), atol=0.02, rtol=0)
    torch.testing.assert_close(two.noise, one.noise, rtol=0.05, atol=0)


def test_batches_add_up(drawn):
    batch = drawn[0]
    halves = [Transitions(*(value[part] for value in batch)) for part in (slice(0, 1800), slice(1800, None))]
    one, two = fitted([batch], [True] * 3), fitted(halves, [True] * 3)
    torch.testing.assert_close(two.agent_encoder.table(), one.agent_encoder.table(), rtol=1e-4, atol=1e-5)


def test_rates_are_found_from_times_of_any_length():
    """An agent's state decays exponentially; the logarithm of what is left is proportional to the time."""
    rng = np.random.default_rng(1)
    rates = rng.uniform(0.1, 0.6, AGENTS)
    duration = torch.from_numpy(rng.uniform(0.2, 1.0, (AGENTS * ROWS, 1))).float()
    agent = torch.arange(AGENTS).repeat_interleave(ROWS)
    state = torch.from_numpy(rng.normal(size=(AGENTS * ROWS, 1))).float()
    target = state * torch.exp(-torch.from_numpy(rates)[agent, None].float() * duration)
    always = torch.ones(len(agent), 1, 1, dtype=torch.bool)
    chains = Chains(agent, state, torch.zeros(len(agent), 1, 1), duration, target[:, None], always, always)
    found = fitted([chains], [True, True, False], "rk4")
    np.testing.assert_allclose(found.agent_encoder.table()[0, :, 1], -rates, atol=0.01)


def test_without_rows_nothing_changes():
    found = fitted([], [True] * 3)
    assert not found.agent_encoder.table().any()
