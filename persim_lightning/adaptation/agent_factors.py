"""The factors of all agents of a training set in closed form, and the prior and noise that they rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from persim_lightning.adaptation.posterior import FactorPosterior, floored, moment_prior
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Transitions

# Factors change the noise, and noise the factors; each round reads the training set twice.
_NOISE_ROUNDS = 2
# Rounds of expectation maximization for the prior; they need no data.
_PRIOR_ROUNDS = 5
# No network is more exact than single precision.
_NOISE_FLOOR = 1e-14


@torch.no_grad()
def refit_agent_factors(simulator: Simulator, transitions: Callable[[], Iterable[Transitions]]) -> None:
    """Replace every agent's factor, in place, by its posterior mean given its transitions.

    Empirical Bayes: noise by member and coordinate from the residuals, the prior's mean and covariance by expectation
    maximization. The simulator keeps the noise and the prior that its factors rest on, so that adapting to the same
    rows gives the same factor. Gradient descent leaves agents with few rows at factors that explain those rows but
    lie apart from the population, which long rollouts amplify.

    Parameters
    ----------
    simulator : Simulator
    transitions : callable, () -> iterable of Transitions
        The training set, each transition once; agent (B,), state (B, D), action (B,)|(B, A), delta (B, D).
    """
    encoder = simulator.agent_encoder
    prior = moment_prior(encoder.table())
    for _ in range(_NOISE_ROUNDS):
        simulator.noise.copy_(residual_variance(simulator, transitions()))
        posterior = FactorPosterior(simulator, prior, simulator.num_agents)
        for batch in transitions():
            posterior.update(batch)
        for _ in range(_PRIOR_ROUNDS):
            factors = posterior.mean
            prior = posterior.prior
            between = moment_prior(factors)
            posterior.prior = between._replace(covariance=floored(between.covariance + posterior.mean_covariance()))
        encoder.deviation.copy_(factors - encoder.shared)
    simulator.prior_mean.copy_(prior.mean[:, 0])
    simulator.prior_covariance.copy_(prior.covariance)


@torch.no_grad()
def residual_variance(simulator: Simulator, batches: Iterable[Transitions]) -> Tensor:
    """Every member's mean squared error by coordinate, normalized units, shape (M, D), float64, floored."""
    total, count = torch.zeros_like(simulator.noise, dtype=torch.float64), 0
    for batch in batches:
        shared = Transitions(*(value.expand(simulator.members, *value.shape) for value in batch))
        predicted = simulator.normalized_delta(shared.agent, shared.state, shared.action)
        total += (predicted - batch.delta / simulator.delta_rms).square().double().sum(1)
        count += batch.agent.numel()
    return (total / count).clamp(min=_NOISE_FLOOR)
