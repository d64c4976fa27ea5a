"""Predictions along chains: observed coordinates replace predicted ones, the others are carried on."""

from __future__ import annotations

import torch
from torch import Tensor

from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Chains


def predict_chains(simulator: Simulator, factors: Tensor, chains: Chains) -> Tensor:
    """Predict the states at the ends of all steps, before they are replaced by what was observed.

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
    state = chains.state
    predicted = []
    for step in range(chains.duration.shape[2]):
        state = simulator.advance(factors, state, chains.action[:, :, step], chains.duration[:, :, step])
        predicted.append(state)
        state = torch.where(chains.observed[:, :, step], chains.target[:, :, step], state)
    return torch.stack(predicted, dim=2)


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
