"""What a plan is worth: rewards until termination, with an optional bonus for reaching far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...)
Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
# states (..., D) -> (...) bool
Termination = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peak:
    """A shaping term: `weight` times the largest value that a state coordinate takes along a plan.

    Where rewards are the same for all plans that fall short of a goal, it tells which one comes nearest to it. The
    return that a plan is *reported* to have never contains it.

    Parameters
    ----------
    coordinate : int
        State coordinate.
    weight : float
    """

    coordinate: int
    weight: float


@dataclass(frozen=True)
class Objective:
    """Rewards of steps until termination, the terminating step included.

    Parameters
    ----------
    reward : callable, (states (..., D), actions (...)|(..., A), next_states (..., D)) -> (...)
    terminated : callable, (states (..., D)) -> (...) bool
    peak : Peak, optional
    """

    reward: Reward
    terminated: Termination
    peak: Peak | None = None


def trajectory_values(objective: Objective, states: Tensor, actions: Tensor) -> Tensor:
    """What each of many trajectories is worth.

    Parameters
    ----------
    objective : Objective
    states : Tensor, shape (..., H+1, D)
    actions : Tensor, shape (..., H) or (..., H, A)

    Returns
    -------
    Tensor, shape (...)
        Undiscounted; what comes after termination does not count. NaN where a state before it is not finite.
    """
    before, after = states[..., :-1, :], states[..., 1:, :]
    ended = objective.terminated(after)
    # Step h counts if none before it has ended the episode.
    running = ended.cumsum(-1) - ended.long() == 0
    reward = torch.where(after.isfinite().all(-1), objective.reward(before, actions, after), torch.nan)
    value = torch.where(running, reward, 0.0).sum(-1)
    if objective.peak is not None:
        coordinate = torch.where(running, after[..., objective.peak.coordinate], -torch.inf)
        value = value + objective.peak.weight * coordinate.amax(-1)
    return value


def pessimistic_mean(values: Tensor, pessimism: float) -> Tensor:
    """Combine members' values: mean - κ·std over the first dimension."""
    mean = values.mean(0)
    return mean - pessimism * values.std(0, correction=0) if pessimism else mean
