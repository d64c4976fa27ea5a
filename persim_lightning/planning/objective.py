"""What a plan is worth: rewards until termination, with an optional bonus for reaching far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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


class Outcome(NamedTuple):
    """What trajectories have come to so far.

    Attributes
    ----------
    total, top : Tensor, shape (...)
        Sum of rewards, and the largest value of the peak's coordinate.
    running : Tensor, shape (...)
        Whether the trajectory has not yet terminated.
    """

    total: Tensor
    top: Tensor
    running: Tensor

    @classmethod
    def start(cls, like: Tensor) -> Outcome:
        """Of trajectories that have taken no step yet; `like` gives shape, type and device."""
        return cls(torch.zeros_like(like), torch.full_like(like, -torch.inf), torch.ones_like(like, dtype=torch.bool))

    def value(self, objective: Objective) -> Tensor:
        """Total with the shaping term."""
        return self.total if objective.peak is None else self.total + objective.peak.weight * self.top


def advance(objective: Objective, outcome: Outcome, states: Tensor, actions: Tensor) -> Outcome:
    """Outcome of trajectories after a further stretch of K steps.

    Parameters
    ----------
    objective : Objective
    outcome : Outcome, shapes (...)
        Up to `states[..., 0, :]`.
    states : Tensor, shape (..., K+1, D)
    actions : Tensor, shape (..., K) or (..., K, A)

    Returns
    -------
    Outcome
        What comes after termination does not count. `total` is NaN where a state before it is not finite.
    """
    before, after = states[..., :-1, :], states[..., 1:, :]
    ended, reward = objective.terminated(after), objective.reward(before, actions, after)
    # A reward may not depend on the states, and NaN terminates nothing: a plan that breaks the model must not win.
    if not bool(states.sum().isfinite()):
        reward = torch.where(after.isfinite().all(-1), reward, torch.nan)
    height = None if objective.peak is None else after[..., objective.peak.coordinate]
    running = outcome.running
    if bool(ended.any()) or not bool(running.all()):
        # Step h counts if none before it has ended the episode.
        alive = running[..., None] & (ended.cumsum(-1) - ended.long() == 0)
        running = running & ~ended.any(-1)
        reward = torch.where(alive, reward, 0.0)
        height = None if height is None else torch.where(alive, height, -torch.inf)
    top = outcome.top if height is None else outcome.top.maximum(height.amax(-1))
    return Outcome(outcome.total + reward.sum(-1), top, running)


def trajectory_values(objective: Objective, states: Tensor, actions: Tensor) -> Tensor:
    """What each of many whole trajectories is worth.

    Parameters
    ----------
    objective : Objective
    states : Tensor, shape (..., H+1, D)
    actions : Tensor, shape (..., H) or (..., H, A)

    Returns
    -------
    Tensor, shape (...)
        Undiscounted, as :func:`advance` counts.
    """
    return advance(objective, Outcome.start(states[..., 0, 0]), states, actions).value(objective)


def pessimistic_mean(values: Tensor, pessimism: float) -> Tensor:
    """Combine members' values: mean - κ·std over the first dimension."""
    mean = values.mean(0)
    return mean - pessimism * values.std(0, correction=0) if pessimism else mean
