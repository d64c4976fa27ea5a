"""Keeps predicted states within the range that was recorded."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StateBounds(nn.Module):
    """Clamps states to the training data's range, widened by a margin; without a margin it does nothing.

    Parameters
    ----------
    state_dim : int
    margin : float or None
        Share of the range that is added on both sides. Right for systems with walls; None (the paper's way) where
        good policies leave the range that was recorded.
    """

    low: Tensor
    high: Tensor

    def __init__(self, state_dim: int, margin: float | None) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("low", torch.full((state_dim,), -torch.inf))
        self.register_buffer("high", torch.full((state_dim,), torch.inf))

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take the smallest and largest recorded states, each (D,)."""
        self.low.copy_(low)
        self.high.copy_(high)

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.margin is None:
            return states
        margin = self.margin * (self.high - self.low)
        return states.clamp(self.low - margin, self.high + margin)
