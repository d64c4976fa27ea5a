"""Scales of network inputs: standardized states with angles, encoded actions, Δs in units of their root mean square."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persim_lightning.types import Statistics

_NAMES = ("state_mean", "state_std", "delta_rms", "action_mean", "action_std")


def standardized(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardize values (..., X) by means (X,) and standard deviations (X,)."""
    return (values - mean) / std


def standardized_states(states: Tensor, mean: Tensor, std: Tensor, angles: list[int]) -> Tensor:
    """Standardize states, and append sines and cosines of unbounded angles: (..., D) -> (..., D + 2·angles)."""
    scaled = standardized(states, mean, std)
    if not angles:
        return scaled
    selected = states[..., angles]
    return torch.cat((scaled, selected.sin(), selected.cos()), dim=-1)


class Scales(nn.Module):
    """Normalization constants of a training set.

    Parameters
    ----------
    state_dim, action_dim : int
        D, and the number of action columns (1 for discrete actions).
    num_actions : int or None
        Number of discrete actions, which are encoded one-hot; None for continuous ones, which are standardized.
    angles : sequence of int
        State coordinates that are unbounded angles (rad); their sines and cosines are appended.
    """

    state_mean: Tensor
    state_std: Tensor
    delta_rms: Tensor
    action_mean: Tensor
    action_std: Tensor

    def __init__(self, state_dim: int, action_dim: int, num_actions: int | None, angles: Sequence[int] = ()) -> None:
        super().__init__()
        self.num_actions, self.angles = num_actions, list(angles)
        self.states_size = state_dim + 2 * len(self.angles)
        self.actions_size = action_dim if num_actions is None else num_actions
        amounts = action_dim if num_actions is None else 0
        for name, size in zip(_NAMES, (state_dim, state_dim, state_dim, amounts, amounts), strict=True):
            constant = torch.zeros(size) if name.endswith("mean") else torch.ones(size)
            self.register_buffer(name, constant)

    def set(self, statistics: Statistics) -> None:
        """Set the constants from a training set."""
        for name in _NAMES:
            getattr(self, name).copy_(getattr(statistics, name))

    def states(self, states: Tensor) -> Tensor:
        """Standardize states (..., D) -> (..., D + 2·angles)."""
        return standardized_states(states, self.state_mean, self.state_std, self.angles)

    def actions(self, actions: Tensor) -> Tensor:
        """Encode discrete (...) or standardize continuous (..., A) actions -> (..., actions_size)."""
        if self.num_actions is not None:
            return F.one_hot(actions, self.num_actions).to(self.delta_rms.dtype)
        return standardized(actions, self.action_mean, self.action_std)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Concatenate scaled states and actions."""
        return torch.cat((self.states(states), self.actions(actions)), dim=-1)
