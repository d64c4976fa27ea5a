"""Computes design matrices of agent factors: with fixed encoders, PerSim's prediction is linear in the factor."""

from __future__ import annotations

import torch
from torch import Tensor

from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Transitions


@torch.no_grad()
def agent_designs(simulator: Simulator, batch: Transitions) -> Tensor:
    """Compute the design matrices: predictions are `designs @ factor`, in normalized units.

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
    rank = simulator.config.ranks.agent
    unit = torch.eye(rank, device=state.device, dtype=state.dtype)[:, None].expand(members, rank, action.shape[1], rank)
    coefficients = simulator.factorization.coefficients(unit, action[:, None].expand(-1, rank, -1, -1))
    return torch.einsum("mbdj,mrbj->mbdr", state.double(), coefficients.double())
