"""Agent factors in closed form: with the encoders fixed, PerSim's prediction is linear in the agent's factor."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Transitions

# Variances below this share of the mean one are raised to it: a direction in which agents hardly differ.
_VARIANCE_FLOOR = 1e-10
_ROUNDS = 5


@torch.no_grad()
def agent_designs(simulator: Simulator, batch: Transitions) -> Tensor:
    """What an agent factor is multiplied by: predictions are `designs @ factor`, in normalised units.

    Parameters
    ----------
    simulator : Simulator
    batch : Transitions
        State (B, D) and action (B,)|(B, A), shared by members.

    Returns
    -------
    Tensor, shape (M, B, D, R_agent), float64
    """
    members = simulator.members
    state = simulator.state_encoder(batch.state.expand(members, *batch.state.shape))
    action = simulator.action_encoder(batch.action.expand(members, *batch.action.shape))
    # Coefficients are linear in the agent factor, so unit vectors give the matrix.
    rank = simulator.ranks.agent
    unit = torch.eye(rank, device=state.device, dtype=state.dtype)[:, None].expand(members, rank, action.shape[1], rank)
    coefficients = simulator.factorization.coefficients(unit, action[:, None].expand(-1, rank, -1, -1))
    return torch.einsum("mbdj,mrbj->mbdr", state.double(), coefficients.double())


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
        Mean squared error of each member on the training set, normalised units, after the refit.
    """
    shape = (simulator.members, simulator.num_agents, simulator.ranks.agent)
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
        mean = factors.mean(1, keepdim=True)
        centred = factors - mean
        covariance = centred.mT @ centred / shape[1]
        floor = _VARIANCE_FLOOR * covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
        covariance.diagonal(dim1=1, dim2=2).add_(floor[:, None])
        precision = (torch.linalg.inv(covariance) * noise[:, None, None])[:, None]
        factors = torch.linalg.solve(gram + precision, moment + (precision @ mean[..., None])[..., 0])
    simulator.agent_encoder.deviation.copy_(factors - simulator.agent_encoder.shared)
    return _mean_square_error(factors, gram, moment, square, count)


def _mean_square_error(factors: Tensor, gram: Tensor, moment: Tensor, square: float, count: int) -> Tensor:
    """Mean of ‖y - Φu‖² of every member from its moments, shape (M,); floored against rounding."""
    explained = torch.einsum("mnr,mnrs,mns->m", factors, gram, factors) - 2 * torch.einsum(
        "mnr,mnr->m", factors, moment
    )
    return ((square + explained) / count).clamp(min=1e-14)
