"""Merges simulators of different rank and depth into one ensemble, each as a member or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.models.simulator import Simulator, empty_simulator

# Variance of the prior of ranks that a member does not use, so that covariances can be inverted.
_UNUSED = 1e-12
# Constants of the data, the same for all members.
_SHARED = {
    "delta_rms",
    "state_range",
    "walls.low",
    "walls.high",
    "walls.low_contact",
    "walls.high_contact",
    "state_encoder.state_mean",
    "state_encoder.state_std",
    "action_encoder.action_mean",
    "action_encoder.action_std",
}


@torch.no_grad()
def merge_members(simulators: Sequence[Simulator], config: SimulatorConfig) -> Simulator:
    """Join the members of simulators of the same data into one simulator.

    Smaller ranks are filled with zeros, and affine members get hidden layers that do not count, so every member
    predicts as before.

    Parameters
    ----------
    simulators : sequence of Simulator
        CP models with the same normalization constants, without hidden layers or with those of `config`.
    config : SimulatorConfig
        Sizes and options of the data, and hidden layers.

    Raises
    ------
    ConfigurationError
        If a simulator is no CP model.
    """
    if any(one.config.factorization != "cp" for one in simulators):
        raise ConfigurationError("only CP factorizations can be merged: set factorization to cp")
    members = sum(one.members for one in simulators)
    rank = max(one.config.ranks.agent for one in simulators)
    merged = empty_simulator(replace(config, members=members, ranks=Ranks(rank, rank, rank), factorization="cp"))
    state = merged.state_dict()
    for name, value in state.items():
        if name in _SHARED:
            state[name] = simulators[0].state_dict()[name]
            continue
        parts = [_padded(name, one, value.shape[1:], rank) for one in simulators]
        state[name] = torch.cat(parts).to(value)
    merged.load_state_dict(state)
    return merged.eval()


def _padded(name: str, simulator: Simulator, shape: torch.Size, rank: int) -> Tensor:
    """Return a tensor of a simulator, (M, *), filled to (M, *shape)."""
    own = simulator.state_dict().get(name)
    if own is None:
        # Hidden layers of an affine member.
        return torch.zeros(simulator.members, *shape)
    smaller = simulator.config.ranks.agent
    if smaller == rank:
        return own
    if name == "prior_covariance":
        filled = torch.diag_embed(own.new_full((simulator.members, rank), _UNUSED))
        filled[:, :smaller, :smaller] = own
        return filled
    if own.shape[1:] == shape:
        return own
    # Ranks come last: of each coordinate in the state encoder, alone elsewhere.
    return torch.nn.functional.pad(own.unflatten(-1, (-1, smaller)), (0, rank - smaller)).flatten(-2)
