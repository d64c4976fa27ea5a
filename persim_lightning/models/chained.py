"""Predictions along chains: observed coordinates replace predicted ones, the others are carried on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Chains


def predict_chains(simulator: Simulator, factors: Tensor, chains: Chains) -> Tensor:
    """Predict the states at the ends of all steps, before observed coordinates replace them; zero after the last step.

    Parameters
    ----------
    simulator : Simulator
    factors : Tensor, shape (M, B, R)
        Agent factors.
    chains : Chains
        Shapes (M, B, ...).

    Returns
    -------
    Tensor, shape (M, B, K, D)
    """
    # Longest chains first, so that every step computes only those that are not over.
    steps = torch.arange(1, chains.duration.shape[2] + 1, device=chains.duration.device)
    length = (((chains.duration > 0) | chains.observed.any(-1)) * steps).amax(-1)
    order = length.argsort(1, descending=True)
    member = torch.arange(len(order), device=order.device)[:, None]
    ordered = Chains(*(part[member, order] for part in chains))
    factors, length = factors[member, order], length[member, order]
    state = ordered.state
    parts = []
    for step in range(int(length.max())):
        count = int((length > step).sum(1).max())
        now = simulator.advance(
            factors[:, :count], state[:, :count], ordered.action[:, :count, step], ordered.duration[:, :count, step]
        )
        parts.append(F.pad(now, (0, 0, 0, order.shape[1] - count)))
        state = torch.where(ordered.observed[:, :count, step], ordered.target[:, :count, step], now)
    parts += [torch.zeros_like(chains.state)] * (len(steps) - len(parts))
    return torch.stack(parts, dim=2)[member, order.argsort(1)]


def chain_errors(simulator: Simulator, chains: Chains) -> Tensor:
    """Errors of predicted states in units of the root mean square of Δs, (M, B, K, D); zero where nothing is scored."""
    predicted = predict_chains(simulator, simulator.agent_encoder(chains.agent), chains)
    return torch.where(chains.scored, (predicted - chains.target) / simulator.delta_rms, 0.0)


def chain_loss(simulator: Simulator, chains: Chains) -> Tensor:
    """Mean squared error of every member over scored coordinates: chains (M, B, ...) -> (M,)."""
    errors = chain_errors(simulator, chains)
    return errors.square().sum((1, 2, 3)) / chains.scored.sum((1, 2, 3)).clamp(min=1)


def expand_members(chains: Chains, members: int) -> Chains:
    """Repeat chains (B, ...) for every member: (M, B, ...)."""
    return Chains(*(value.expand(members, *value.shape) for value in chains))
