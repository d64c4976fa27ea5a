"""Computes design matrices of agent factors: with fixed encoders, PerSim's prediction is linear in the factor.

Predictions over several rows or sub-steps are linearized.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.models.chained import expand_members, predict_chains
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Chains, Transitions


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


class Linearized(NamedTuple):
    """A linear model of scored coordinates in normalized units: `target ≈ design @ factor`; others are zero.

    Attributes
    ----------
    design : Tensor, shape (M, B, K·D, R), float64
    target : Tensor, shape (M, B, K·D), float64
    """

    design: Tensor
    target: Tensor


def linearized(simulator: Simulator, chains: Chains, factors: Tensor) -> Linearized:
    """Linearize the predictions of chains (B, ...) at the agents' factors (M, B, R)."""
    shared = expand_members(chains, simulator.members)
    point = factors.to(simulator.delta_rms.dtype)

    def predict(given: Tensor) -> Tensor:
        return predict_chains(simulator, given, shared) / simulator.delta_rms

    def derivative(direction: Tensor) -> Tensor:
        column: Tensor = torch.func.jvp(predict, (point,), (direction,))[1]  # type: ignore[assignment]
        return column

    units = torch.eye(point.shape[-1], dtype=point.dtype, device=point.device)
    # All directions together: the predictions themselves are computed once.
    directions = units[:, None, None].expand(-1, *point.shape[:2], -1)
    jacobian = torch.func.vmap(derivative, out_dims=-1)(directions).double()
    predicted = predict(point)
    residual = (shared.target / simulator.delta_rms - predicted).double()
    target = residual + (jacobian @ factors.double()[:, :, None, :, None])[..., 0]
    scored = shared.scored
    jacobian = torch.where(scored[..., None], jacobian, 0.0)
    return Linearized(jacobian.flatten(2, 3), torch.where(scored, target, 0.0).flatten(2, 3))
