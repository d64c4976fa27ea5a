"""Ensembles of fewer members."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from persim_lightning.models.population import build_simulator
from persim_lightning.models.simulator import Simulator


@torch.no_grad()
def select_members(
    simulator: Simulator, architecture: dict[str, Any], members: Tensor
) -> tuple[Simulator, dict[str, Any]]:
    """A simulator of some members of another.

    Parameters
    ----------
    simulator : Simulator
    architecture : dict
        Keyword arguments that built it.
    members : Tensor, shape (K,), int64

    Returns
    -------
    Simulator
        Of K members, on the same device.
    dict
        Its architecture.
    """
    chosen = {**architecture, "members": len(members)}
    smaller = build_simulator(chosen).to(simulator.delta_rms.device)
    state = simulator.state_dict()
    # Every parameter has the members first; all buffers but the noise are shared by them.
    own = {**dict(simulator.named_parameters()), "noise": simulator.noise}
    state |= {name: value[members] for name, value in own.items()}
    smaller.load_state_dict(state)
    return smaller, chosen
