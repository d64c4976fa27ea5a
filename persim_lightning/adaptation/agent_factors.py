"""The factors of all agents of a training set in closed form."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from persim_lightning.adaptation.designs import agent_designs
from persim_lightning.adaptation.posterior import population_prior
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Transitions

_ROUNDS = 5
# Agents that are solved for together.
_BLOCK = 4096


@torch.no_grad()
def refit_agent_factors(simulator: Simulator, batches: Iterable[Transitions]) -> Tensor:
    """Replace every agent's factor, in place, by its posterior mean given its transitions.

    Bayesian ridge regression with an empirical prior: Gaussian with the population's mean and covariance, noise of the
    member's residual variance, both re-estimated in a few rounds. Gradient descent leaves agents with few rows at
    factors that explain those rows but stand apart from the population, which long rollouts amplify.

    Parameters
    ----------
    simulator : Simulator
    batches : iterable of Transitions
        The training set, each transition once; agent (B,), state (B, D), action (B,)|(B, A), delta (B, D).

    Returns
    -------
    Tensor, shape (M,), float64
        Mean squared error of each member on the training set, normalized units, after the refit.
    """
    shape = (simulator.members, simulator.num_agents, simulator.config.ranks.agent)
    device = simulator.delta_rms.device
    gram = torch.zeros(*shape, shape[-1], dtype=torch.float64, device=device)
    moment = torch.zeros(shape, dtype=torch.float64, device=device)
    square, count = 0.0, 0
    for batch in batches:
        design, target = agent_designs(simulator, batch), (batch.delta / simulator.delta_rms).double()
        gram.index_add_(1, batch.agent, torch.einsum("mbdr,mbds->mbrs", design, design))
        moment.index_add_(1, batch.agent, torch.einsum("mbdr,bd->mbr", design, target))
        square, count = square + float(target.square().sum()), count + target.numel()
    factors = simulator.agent_encoder.table().double()
    for _ in range(_ROUNDS):
        noise = _mean_square_error(factors, gram, moment, square, count)
        prior = population_prior(factors)
        precision = (torch.linalg.inv(prior.covariance) * noise[:, None, None])[:, None]
        information = (precision @ prior.mean[..., None])[..., 0]
        # In blocks: a solver takes several times the memory of what it solves.
        factors = torch.cat(
            [
                torch.linalg.solve(own + precision, told + information)
                for own, told in zip(gram.split(_BLOCK, dim=1), moment.split(_BLOCK, dim=1), strict=True)
            ],
            dim=1,
        )
    simulator.agent_encoder.deviation.copy_(factors - simulator.agent_encoder.shared)
    return _mean_square_error(factors, gram, moment, square, count)


def _mean_square_error(factors: Tensor, gram: Tensor, moment: Tensor, square: float, count: int) -> Tensor:
    """Mean of ‖y - Φu‖² of every member from its moments, shape (M,); floored against rounding."""
    fitted = torch.stack([(own @ told[..., None])[..., 0] for own, told in zip(gram, factors, strict=True)])
    explained = ((fitted - 2 * moment) * factors).sum((1, 2))
    return ((square + explained) / count).clamp(min=1e-14)
