"""Backtests: rollouts over held-out tails of trajectories, from several origins in each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.filtering import filtered
from persim_lightning.evaluation.prediction import HORIZON, EpisodeWindows, predict
from persim_lightning.models.population import FittedPopulation

# Origins of rollouts in a tail, as shares of it, and windows that are compared at most for each.
ORIGINS = (0.0, 1 / 3, 2 / 3)
_MAX_WINDOWS = 1000


class Rollouts(NamedTuple):
    """Predicted states of all windows, one below the other.

    Attributes
    ----------
    predicted, target : Tensor, shape (W, D), float64
    observed : Tensor, shape (W, D), bool
    """

    predicted: Tensor
    target: Tensor
    observed: Tensor


def backtest(population: FittedPopulation, trajectories: Trajectories, tail: float) -> Rollouts:
    """Roll out tails that the population was not fitted to.

    Parameters
    ----------
    population : FittedPopulation
    trajectories : Trajectories
        Of its agents.
    tail : float
        Share of every trajectory, at its tail.
    """
    known = filtered(population, trajectories)
    starts = known.tail_starts(tail)
    left = known.lengths - 1 - starts
    parts = []
    for origin in ORIGINS:
        begin = starts + (left * origin).floor().long()
        windows = EpisodeWindows.cut(known, begin, HORIZON)
        # The first origin holds all windows that later ones could repeat.
        scored = ((windows.steps > 0) & ((origin == 0) | (begin > starts))).nonzero()[:, 0]
        if not len(scored):
            continue
        windows = windows.select(scored[:: max(1, -(-len(scored) // _MAX_WINDOWS))]).trimmed()
        predicted = predict(population.simulator, windows.agent, windows)
        # What is observed is the recorded value, also where the filter changed nothing.
        parts.append([value.flatten(0, 1) for value in (predicted, windows.target, windows.observed_mask())])
    predicted, target, observed = (torch.cat(values) for values in zip(*parts, strict=True))
    return Rollouts(predicted.double(), target.double(), observed)


def can_backtest(trajectories: Trajectories, tail: float) -> bool:
    """Return whether some trajectory has a tail."""
    return bool((trajectories.tail_starts(tail) < trajectories.lengths - 1).any())


def errors(predicted: Tensor, rollouts: Rollouts, scale: Tensor) -> Tensor:
    """Root mean squared error of every coordinate in units of `scale` (D,): (W, D) -> (D,)."""
    squared = torch.where(rollouts.observed, (predicted - rollouts.target) / scale, 0.0).square()
    return (squared.sum(0) / rollouts.observed.sum(0).clamp(min=1)).sqrt()


def state_scale(trajectories: Trajectories) -> Tensor:
    """Standard deviation of the observed states, (D,), float64; one where a state is constant."""
    values = torch.where(trajectories.observed_mask(), trajectories.state.double(), torch.nan).numpy()
    spread = torch.from_numpy(np.nanstd(values, axis=0)).nan_to_num()
    return torch.where(spread > 0, spread, 1.0)
