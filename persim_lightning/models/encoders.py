"""The three encoders of PerSim (section 4; https://arxiv.org/abs/2102.06961): agent, state and action.

They are connected only by the factorization layer. Each contains all M ensemble members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persim_lightning.models.layers import SkipMLP
from persim_lightning.models.scaling import standardized, standardized_states


class MemberEmbedding(nn.Module):
    """A vector for every (member, row): a value shared by all rows plus the row's deviation.

    Deviations of agents start at zero, so that an agent with little data stays near the population, and products of
    factors do not start near zero.

    Parameters
    ----------
    members, rows, size : int
    spread : float
        Standard deviation of the initial deviations.
    """

    def __init__(self, members: int, rows: int, size: int, spread: float) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.ones(members, 1, size))
        self.deviation = nn.Parameter(spread * torch.randn(members, rows, size))

    def table(self) -> Tensor:
        """Return all vectors, shape (M, rows, size)."""
        return self.shared + self.deviation

    def forward(self, index: Tensor) -> Tensor:
        """(M, B) int64 -> (M, B, size)."""
        members, rows, size = self.deviation.shape
        offset = torch.arange(members, device=index.device)[:, None] * rows
        return self.shared + F.embedding(index + offset, self.deviation.reshape(members * rows, size))


class StateEncoder(nn.Module):
    """State -> D vectors of the state rank: v(s, d).

    Parameters
    ----------
    members, state_dim, rank : int
    hidden : sequence of int
        Hidden widths.
    angles : sequence of int
        Coordinates that are unbounded angles (rad); their sines and cosines are further inputs.
    """

    state_mean: Tensor
    state_std: Tensor

    def __init__(
        self, members: int, state_dim: int, rank: int, hidden: Sequence[int], angles: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.shape = (state_dim, rank)
        self.angles = list(angles)
        self.inputs_dim = state_dim + 2 * len(self.angles)
        self.register_buffer("state_mean", torch.zeros(state_dim))
        self.register_buffer("state_std", torch.ones(state_dim))
        self.mlp = SkipMLP(members, self.inputs_dim, state_dim * rank, hidden)
        with torch.no_grad():
            # Predictions are sums of `rank` products; keep their variance of order one.
            for parameter in (self.mlp.skip.weight, *([self.mlp.output.weight] if self.mlp.output else [])):
                parameter.mul_(1 / math.sqrt(rank))

    def inputs(self, states: Tensor) -> Tensor:
        """Standardize coordinates, and append sines and cosines of angles: (M, B, D) -> (M, B, D + 2·angles)."""
        scaled = standardized_states(states, self.state_mean, self.state_std, self.angles)
        return scaled.to(self.mlp.skip.weight.dtype)

    def forward(self, states: Tensor) -> Tensor:
        """(M, B, D) -> (M, B, D, rank)."""
        return self.mlp(self.inputs(states)).unflatten(-1, self.shape)


class ContinuousActionEncoder(nn.Module):
    """Continuous action -> vector of the action rank: w(a).

    Parameters
    ----------
    members, action_dim, rank : int
    hidden : sequence of int
    """

    action_mean: Tensor
    action_std: Tensor

    def __init__(self, members: int, action_dim: int, rank: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("action_mean", torch.zeros(action_dim))
        self.register_buffer("action_std", torch.ones(action_dim))
        self.mlp = SkipMLP(members, action_dim, rank, hidden)
        with torch.no_grad():
            self.mlp.skip.bias.fill_(1.0)

    def forward(self, actions: Tensor) -> Tensor:
        """(M, B, A) -> (M, B, rank)."""
        return self.mlp(standardized(actions, self.action_mean, self.action_std))
