"""Selects ensemble members."""

from __future__ import annotations

import torch
from torch import Tensor

from persim_lightning.models.simulator import Simulator, empty_simulator


@torch.no_grad()
def select_members(simulator: Simulator, members: Tensor) -> Simulator:
    """Build a simulator of some members of another, on the same device.

    Parameters
    ----------
    simulator : Simulator
    members : Tensor, shape (K,), int64
    """
    smaller = empty_simulator(simulator.config.with_members(len(members))).to(simulator.delta_rms.device)
    state = simulator.state_dict()
    # All parameters and these buffers have the members in the first dimension.
    names = [*dict(simulator.named_parameters()), "noise", "prior_mean", "prior_covariance"]
    state |= {name: state[name][members] for name in names}
    smaller.load_state_dict(state)
    return smaller
