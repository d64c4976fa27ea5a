"""R² of open-loop rollouts h steps ahead, over all episodes of an agent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

HORIZONS = (1, 5, 10, 25, 50)


class HorizonR2(Metric):
    """R² per agent and horizon: 1 - squared error / variance, each summed over coordinates and episodes.

    A single episode has one state at each horizon, so no variance; therefore the sums run over episodes.

    Parameters
    ----------
    num_agents : int
        N.
    state_dim : int
        D.
    horizons : sequence of int
        Steps ahead, from 1.
    """

    full_state_update = False
    error: Tensor
    count: Tensor
    total: Tensor
    square: Tensor

    def __init__(self, num_agents: int, state_dim: int, horizons: Sequence[int] = HORIZONS) -> None:
        super().__init__()
        self.horizons = tuple(horizons)
        shape = (num_agents, len(self.horizons))
        self.add_state("error", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(*shape, state_dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("square", torch.zeros(*shape, state_dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, agent: Tensor, predicted: Tensor, target: Tensor, steps: Tensor, observed: Tensor | None = None
    ) -> None:
        """Add episodes.

        Parameters
        ----------
        agent : Tensor, shape (B,), int64
        predicted, target : Tensor, shape (B, H, D)
        steps : Tensor, shape (B,)
            Number of leading steps to compare.
        observed : Tensor, shape (B, H, D), bool, optional
            States that are incomplete at a horizon are left out there.
        """
        for column, horizon in enumerate(self.horizons):
            valid = steps >= horizon
            if observed is not None and horizon <= observed.shape[1]:
                valid &= observed[:, horizon - 1].all(-1)
            index = agent[valid]
            truth = target[valid, horizon - 1].double()
            error = (predicted[valid, horizon - 1].double() - truth).square().sum(-1)
            self.error[:, column].index_add_(0, index, error)
            self.count[:, column].index_add_(0, index, torch.ones_like(error))
            self.total[:, column].index_add_(0, index, truth)
            self.square[:, column].index_add_(0, index, truth.square())

    def compute(self) -> Tensor:
        """Return R², shape (N, horizons): NaN if fewer than two episodes reach it, -inf if rollouts diverged."""
        count = self.count[..., None].clamp(min=1)
        variance = (self.square - self.total.square() / count).sum(-1)
        r2 = torch.where(torch.isfinite(self.error), 1 - self.error / variance, -torch.inf)
        return torch.where((self.count > 1) & (variance > 0), r2, torch.nan)
