"""Backtests: rollouts over held-out tails of trajectories, from several origins in each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.filtering import filtered
from persim_lightning.evaluation.prediction import HORIZON, EpisodeWindows, predict
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.sampling import thinned

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
        windows = windows.select(thinned(scored, _MAX_WINDOWS)).trimmed()
        predicted = predict(population.simulator, windows.agent, windows)
        parts.append([value.flatten(0, 1) for value in (predicted, windows.target, windows.observed_mask())])
    predicted, target, observed = (torch.cat(values) for values in zip(*parts, strict=True))
    return Rollouts(predicted.double(), target.double(), observed)


def errors(predicted: Tensor, rollouts: Rollouts, scale: Tensor) -> Tensor:
    """Root mean squared error of every coordinate in units of `scale` (D,): (W, D) -> (D,)."""
    squared = torch.where(rollouts.observed, (predicted - rollouts.target) / scale, 0.0).square()
    return (squared.sum(0) / rollouts.observed.sum(0).clamp(min=1)).sqrt()


def state_scale(trajectories: Trajectories) -> Tensor:
    """Standard deviation of the observed states, (D,), float64; one where a state is constant."""
    spread = trajectories.observed_std().nan_to_num()
    return torch.where(spread > 0, spread, 1.0)
