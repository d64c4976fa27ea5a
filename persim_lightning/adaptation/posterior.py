"""Bayesian ridge regression of agent factors: what k transitions tell of an agent, in closed form.

With the encoders fixed, PerSim's prediction is linear in the agent's factor, so a Gaussian prior (the population) and
Gaussian noise give a Gaussian posterior (Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.adaptation.designs import agent_designs
from persim_lightning.errors import SimulatorFileError
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Transitions

# Variances below this share of the mean one are raised to it: a direction in which agents hardly differ.
_VARIANCE_FLOOR = 1e-10


class FactorPrior(NamedTuple):
    """What is believed of an agent before anything is seen of it.

    Attributes
    ----------
    mean : Tensor, shape (M, N, R), float64
        Of N agents.
    covariance : Tensor, shape (M, R, R), float64
    """

    mean: Tensor
    covariance: Tensor


def population_prior(factors: Tensor) -> FactorPrior:
    """The population as a prior of one agent: mean and covariance of the fitted agents' factors (M, N, R)."""
    factors = factors.double()
    mean = factors.mean(1, keepdim=True)
    centered = factors - mean
    return FactorPrior(mean, floored(centered.mT @ centered / factors.shape[1]))


def floored(covariance: Tensor) -> Tensor:
    """Covariances (M, R, R) that can be inverted."""
    floor = _VARIANCE_FLOOR * covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    return covariance + torch.diag_embed(floor[:, None].expand(covariance.shape[:2]))


class FactorPosterior:
    """Gaussian beliefs about the factors of N agents, updated by transitions in any order and any portions.

    Kept as sums, so a row at a time gives the same as all rows at once.

    Parameters
    ----------
    simulator : Simulator
        Its encoders, and the noise of each member, are taken as given.
    prior : FactorPrior

    Raises
    ------
    SimulatorFileError
        If the simulator does not know its noise: it was fitted by an older version.
    """

    def __init__(self, simulator: Simulator, prior: FactorPrior) -> None:
        if bool(simulator.noise.isnan().any()):
            raise SimulatorFileError("the simulator was saved by an older version, without its noise: fit it again")
        self._simulator = simulator
        self._noise = simulator.noise.double()[:, None]  # (M, 1, D)
        agents = prior.mean.shape[1]
        self._precision = torch.linalg.inv(prior.covariance)[:, None].repeat(1, agents, 1, 1)
        self._information = (self._precision @ prior.mean[..., None])[..., 0]

    @torch.no_grad()
    def update(self, batch: Transitions) -> FactorPosterior:
        """Take in transitions: agent (B,) as the prior numbers them, state (B, D), action (B,)|(B, A), delta (B, D)."""
        design = agent_designs(self._simulator, batch)
        target = (batch.delta / self._simulator.delta_rms).double()
        weighted = design / self._noise[..., None]
        gram = torch.einsum("mbdr,mbds->mbrs", weighted, design)
        moment = torch.einsum("mbdr,bd->mbr", weighted, target)
        self._precision.index_add_(1, batch.agent, gram)
        self._information.index_add_(1, batch.agent, moment)
        return self

    @property
    def mean(self) -> Tensor:
        """Posterior means, shape (M, N, R), float64."""
        return torch.linalg.solve(self._precision, self._information)

    @property
    def root(self) -> Tensor:
        """Square roots S of the posterior covariances, S·Sᵀ, shape (M, N, R, R), float64.

        By eigenvalues of the precision: where rows tell much of one direction and nothing of another, its inverse is
        not positive definite any more, and has no Cholesky factor.
        """
        values, vectors = torch.linalg.eigh((self._precision + self._precision.mT) / 2)
        values = values.maximum(torch.finfo(values.dtype).eps * values[..., -1:])
        return vectors * values.rsqrt()[..., None, :]

    @property
    def covariance(self) -> Tensor:
        """Posterior covariances, shape (M, N, R, R), float64."""
        root = self.root
        return root @ root.mT
