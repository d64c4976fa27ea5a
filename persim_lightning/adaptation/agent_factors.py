"""Computes the factors of all agents of a training set in closed form, with their prior and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from persim_lightning.adaptation.covariate_prior import covariate_prior
from persim_lightning.adaptation.posterior import FactorPosterior, fit_posterior, moment_prior
from persim_lightning.models.chained import chain_errors, expand_members
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Chains, Transitions

# Rounds that alternate between noise and factors; each reads the training set twice.
_NOISE_ROUNDS = 2
# Rounds of expectation maximization for the prior, which need no data.
_PRIOR_ROUNDS = 4
# Lowest variance of the noise: networks compute in single precision.
_NOISE_FLOOR = 1e-14


@torch.no_grad()
def refit_agent_factors(
    simulator: Simulator,
    transitions: Callable[[], Iterable[Transitions | Chains]],
    covariates: np.ndarray | None = None,
) -> None:
    """Replace every agent's factor, in place, by its posterior mean given its transitions.

    Empirical Bayes: the noise of each member and coordinate is estimated from residuals, the mean and covariance of the
    prior by expectation maximization. The simulator stores both, so that adapting to the same rows gives the same
    factor. Gradient descent alone fits agents with few rows by factors far from the population, whose errors long
    rollouts amplify.

    Parameters
    ----------
    simulator : Simulator
    transitions : callable, () -> iterable of Transitions or Chains
        The training set, each transition or chain once, shapes (B, ...).
    covariates : ndarray, shape (N, C), optional
        Covariates of the agents, NaN where missing. They determine the prior of each agent's factor in a last round.
    """
    encoder = simulator.agent_encoder
    prior = moment_prior(encoder.table())
    for _ in range(_NOISE_ROUNDS):
        simulator.noise.copy_(residual_variance(simulator, transitions()))
        posterior = FactorPosterior(simulator, prior, simulator.num_agents)
        point = encoder.table().double()
        for batch in transitions():
            posterior.update(batch, point)
        for _ in range(_PRIOR_ROUNDS):
            between = moment_prior(posterior.mean)
            posterior.prior = between._replace(covariance=between.covariance + posterior.mean_covariance())
        prior = posterior.prior
        encoder.deviation.copy_(posterior.mean - encoder.shared)
    simulator.prior_mean.copy_(prior.mean[:, 0])
    simulator.prior_covariance.copy_(prior.covariance)
    own = None if covariates is None else covariate_prior(encoder.table(), covariates, covariates)
    if own is not None:
        posterior = fit_posterior(simulator, own, simulator.num_agents, transitions)
        encoder.deviation.copy_(posterior.mean - encoder.shared)


@torch.no_grad()
def residual_variance(simulator: Simulator, batches: Iterable[Transitions | Chains]) -> Tensor:
    """Compute every member's mean squared error by coordinate, normalized units, shape (M, D), float64, floored."""
    total = torch.zeros_like(simulator.noise, dtype=torch.float64)
    count = torch.zeros(simulator.state_dim, dtype=torch.float64, device=total.device)
    for batch in batches:
        if isinstance(batch, Chains):
            error = chain_errors(simulator, expand_members(batch, simulator.members))
            total += error.square().double().sum((1, 2))
            count += batch.scored.sum((0, 1))
            continue
        shared = Transitions(*(value.expand(simulator.members, *value.shape) for value in batch))
        predicted = simulator.normalized_delta(shared.agent, shared.state, shared.action)
        total += (predicted - batch.delta / simulator.delta_rms).square().double().sum(1)
        count += batch.agent.numel()
    return (total / count.clamp(min=1)).clamp(min=_NOISE_FLOOR)
