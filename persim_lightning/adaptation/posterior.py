"""Bayesian ridge regression of agent factors on transitions, in closed form.

With the encoders fixed, PerSim's prediction is linear in the agent's factor, so a Gaussian prior (the population) and
Gaussian noise give a Gaussian posterior (Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3). Fits,
adaptation and intervals all use this one posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.adaptation.designs import agent_designs, linearized
from persim_lightning.errors import SimulatorFileError
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Chains, Transitions

# Share of the mean variance that is added to all, so that covariances can be inverted where agents hardly differ.
_VARIANCE_FLOOR = 1e-10
# Gauss-Newton rounds for chains, whose predictions are not linear in the factors.
_CHAIN_ROUNDS = 3
# Agents that are solved for together, since a solver needs several times the memory of its input.
_BLOCK = 4096


class FactorPrior(NamedTuple):
    """Gaussian prior of agents' factors.

    Attributes
    ----------
    mean : Tensor, shape (M, N, R) or (M, 1, R), float64
        One for each of N agents, or one for all.
    covariance : Tensor, shape (M, R, R), float64
    """

    mean: Tensor
    covariance: Tensor


def population_prior(simulator: Simulator) -> FactorPrior:
    """Return the population's prior of one agent, mean of shape (M, 1, R).

    This is the prior under which the population was fitted. Simulators saved without it use the mean and covariance of
    the agents' factors.
    """
    if not bool(simulator.prior_mean.isnan().any()):
        return FactorPrior(simulator.prior_mean[:, None].double(), simulator.prior_covariance.double())
    return moment_prior(simulator.agent_encoder.table().detach())


def moment_prior(factors: Tensor) -> FactorPrior:
    """Compute the mean (M, 1, R) and covariance of factors (M, N, R)."""
    factors = factors.double()
    mean = factors.mean(1, keepdim=True)
    centered = factors - mean
    return FactorPrior(mean, floored(centered.mT @ centered / factors.shape[1]))


def floored(covariance: Tensor) -> Tensor:
    """Increase the variances of covariances (M, R, R) slightly, so that they can be inverted."""
    floor = _VARIANCE_FLOOR * covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    return covariance + torch.diag_embed(floor[:, None].expand(covariance.shape[:2]))


def fit_posterior(
    simulator: Simulator, prior: FactorPrior, num_agents: int, batches: Callable[[], Iterable[Transitions | Chains]]
) -> FactorPosterior:
    """Compute the posterior of agents' factors from all batches; chains take a few Gauss-Newton rounds.

    Parameters
    ----------
    simulator : Simulator
    prior : FactorPrior
    num_agents : int
    batches : callable, () -> iterable of Transitions or Chains
        Agents are numbered 0 … N-1.
    """
    point: Tensor | None = None
    for _ in range(_CHAIN_ROUNDS):
        posterior, linear = FactorPosterior(simulator, prior, num_agents), True
        for batch in batches():
            posterior.update(batch, point)
            linear &= isinstance(batch, Transitions)
        if linear:
            break
        point = posterior.mean
    return posterior


class FactorPosterior:
    """Gaussian posterior of the factors of N agents, updated by transitions in any order and in any portions.

    It stores sums, so that updating row by row gives the same result as all rows at once.

    Parameters
    ----------
    simulator : Simulator
        Its encoders, and the noise of each member and coordinate, are fixed.
    prior : FactorPrior
    num_agents : int
        N.

    Raises
    ------
    SimulatorFileError
        If the simulator was saved by an older version, without its noise.
    """

    def __init__(self, simulator: Simulator, prior: FactorPrior, num_agents: int) -> None:
        if bool(simulator.noise.isnan().any()):
            raise SimulatorFileError("the simulator was saved by an older version, without its noise: fit it again")
        self._simulator, self.prior = simulator, prior
        self._noise = simulator.noise.double()[:, None]  # (M, 1, D)
        shape = (simulator.members, num_agents, simulator.config.ranks.agent)
        device = simulator.delta_rms.device
        self._gram = torch.zeros(*shape, shape[-1], dtype=torch.float64, device=device)
        self._moment = torch.zeros(shape, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, batch: Transitions | Chains, point: Tensor | None = None) -> FactorPosterior:
        """Add transitions or chains (B, ...) of the agents 0 … N-1.

        Parameters
        ----------
        batch : Transitions or Chains
        point : Tensor, shape (M, N, R), optional
            Factors at which chains, which are not linear in them, are linearized; the prior's mean by default.
        """
        if isinstance(batch, Chains):
            factors = self.prior.mean.expand_as(self._moment) if point is None else point
            linear = linearized(self._simulator, batch, factors[:, batch.agent])
            # The noise of every coordinate, for all steps of a chain.
            weighted = linear.design / self._noise.repeat(1, 1, batch.duration.shape[1])[..., None]
            self._gram.index_add_(1, batch.agent, torch.einsum("mbdr,mbds->mbrs", weighted, linear.design))
            self._moment.index_add_(1, batch.agent, torch.einsum("mbdr,mbd->mbr", weighted, linear.target))
            return self
        design = agent_designs(self._simulator, batch)
        target = (batch.delta / self._simulator.delta_rms).double()
        weighted = design / self._noise[..., None]
        self._gram.index_add_(1, batch.agent, torch.einsum("mbdr,mbds->mbrs", weighted, design))
        self._moment.index_add_(1, batch.agent, torch.einsum("mbdr,bd->mbr", weighted, target))
        return self

    @property
    def mean(self) -> Tensor:
        """Return posterior means, shape (M, N, R), float64."""
        precision = self._prior_precision()
        information = (precision @ self.prior.mean[..., None])[..., 0].expand_as(self._moment)
        blocks = zip(
            self._gram.split(_BLOCK, 1), self._moment.split(_BLOCK, 1), information.split(_BLOCK, 1), strict=True
        )
        return torch.cat(
            [torch.linalg.solve(gram + precision, moment + prior) for gram, moment, prior in blocks], dim=1
        )

    def mean_covariance(self) -> Tensor:
        """Compute the posterior covariance averaged over agents, shape (M, R, R), float64."""
        precision = self._prior_precision()
        total = sum(torch.linalg.inv(gram + precision).sum(1) for gram in self._gram.split(_BLOCK, 1))
        assert isinstance(total, Tensor)
        return total / self._gram.shape[1]

    @property
    def root(self) -> Tensor:
        """Compute square roots S of the posterior covariances S·Sᵀ, shape (M, N, R, R), float64.

        Uses eigenvalues of the precision. Where rows determine one direction and not another, the computed inverse is
        not positive definite, so that a Cholesky factorization would fail.
        """
        precision = self._gram + self._prior_precision()
        values, vectors = torch.linalg.eigh((precision + precision.mT) / 2)
        values = values.maximum(torch.finfo(values.dtype).eps * values[..., -1:])
        return vectors * values.rsqrt()[..., None, :]

    def _prior_precision(self) -> Tensor:
        """Invert the prior's covariance, shape (M, 1, R, R)."""
        return torch.linalg.inv(self.prior.covariance)[:, None]
