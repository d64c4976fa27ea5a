"""Keeps predicted states behind walls that the data have touched."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Walls(nn.Module):
    """Clamps states to bounds; infinite bounds, the default, leave them alone.

    A network's smooth function rounds off the corner where a system hits a wall, and a rollout that passes through one
    is lost. Where the walls are can be read off the data: see
    :meth:`persim_lightning.data.trajectories.Trajectories.walls`.

    Parameters
    ----------
    state_dim : int
    """

    low: Tensor
    high: Tensor

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.full((state_dim,), -torch.inf))
        self.register_buffer("high", torch.full((state_dim,), torch.inf))

    def set(self, low: Tensor, high: Tensor) -> None:
        """Take bounds, each of shape (D,), infinite where there is no wall."""
        self.low.copy_(low)
        self.high.copy_(high)

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return states.clamp(self.low, self.high)
