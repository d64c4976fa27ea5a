"""The value of a plan: rewards until termination, with an optional shaping term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from persim_lightning.errors import ConfigurationError

# (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...)
Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
# states (..., D) -> (...) bool
Termination = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peak:
    """A shaping term: `weight` times the largest value of a state coordinate along a plan.

    It helps where all plans that do not reach a goal have equal rewards: it prefers the plan that comes nearest.
    Reported returns never contain it.

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
    """Sum of rewards until termination, including the terminating step, plus the shaping term.

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
    """Running totals of trajectories.

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
        """Initialize before the first step, with the shape, dtype and device of `like`."""
        return cls(torch.zeros_like(like), torch.full_like(like, -torch.inf), torch.ones_like(like, dtype=torch.bool))

    def value(self, objective: Objective) -> Tensor:
        """Return the total plus the shaping term."""
        return self.total if objective.peak is None else self.total + objective.peak.weight * self.top


def advance(objective: Objective, outcome: Outcome, states: Tensor, actions: Tensor) -> Outcome:
    """Update the outcome of trajectories by K further steps.

    Parameters
    ----------
    objective : Objective
    outcome : Outcome, shapes (...)
        Outcome up to `states[..., 0, :]`.
    states : Tensor, shape (..., K+1, D)
    actions : Tensor, shape (..., K) or (..., K, A)

    Returns
    -------
    Outcome
        Steps after termination do not count. `total` is NaN if a state up to termination is not finite.
    """
    before, after = states[..., :-1, :], states[..., 1:, :]
    terminated, reward = objective.terminated(after), objective.reward(before, actions, after)
    # Without this, a plan whose states become NaN could win: a reward that ignores the states stays finite, and NaN
    # never terminates an episode.
    if not bool(states.sum().isfinite()):
        reward = torch.where(after.isfinite().all(-1), reward, torch.nan)
    height = None if objective.peak is None else after[..., objective.peak.coordinate]
    running = outcome.running
    if bool(terminated.any()) or not bool(running.all()):
        # Step h counts if no earlier step has terminated the episode.
        counts = running[..., None] & (terminated.cumsum(-1) - terminated.long() == 0)
        running = running & ~terminated.any(-1)
        reward = torch.where(counts, reward, 0.0)
        height = None if height is None else torch.where(counts, height, -torch.inf)
    top = outcome.top if height is None else outcome.top.maximum(height.amax(-1))
    return Outcome(outcome.total + reward.sum(-1), top, running)


def trajectory_values(objective: Objective, states: Tensor, actions: Tensor) -> Tensor:
    """Compute the values of whole trajectories.

    Parameters
    ----------
    objective : Objective
    states : Tensor, shape (..., H+1, D)
    actions : Tensor, shape (..., H) or (..., H, A)

    Returns
    -------
    Tensor, shape (...)
        Undiscounted; the rules are those of :func:`advance`.
    """
    return advance(objective, Outcome.start(states[..., 0, 0]), states, actions).value(objective)


def pessimistic_mean(values: Tensor, pessimism: float) -> Tensor:
    """Combine the members' values (M, ...) to mean - κ·std, shape (...)."""
    mean = values.mean(0)
    return mean - pessimism * values.std(0, correction=0) if pessimism else mean


def tensor_function(function: Callable[..., Any], dtype: torch.dtype | None = None) -> Callable[..., Tensor]:
    """Convert what a user's reward or termination returns to tensors.

    Parameters
    ----------
    function : callable
        Its first argument are states (..., D). It may return NumPy arrays of any type, or a last dimension of one.
    dtype : torch.dtype, optional
        Type of the result, by default that of the states.
    """

    def converted(*arguments: Tensor) -> Tensor:
        states = arguments[0]
        # NumPy cannot read tensors that require gradients.
        values = torch.as_tensor(function(*(value.detach() for value in arguments)))
        values = values.to(states.device, dtype or states.dtype)
        return values[..., 0] if values.shape == (*states.shape[:-1], 1) else values

    return converted


def check_reward(reward: Callable[..., Any], name: str, state: Tensor, action: Tensor) -> None:
    """Call a user's reward on a small batch, so that a mistake shows before anything is planned.

    Parameters
    ----------
    reward : callable
    name : str
        Names it in errors.
    state : Tensor, shape (D,)
        An example.
    action : Tensor, shape () or (A,)
        An example.

    Raises
    ------
    ConfigurationError
        If it fails, or does not give a float for every step.
    """
    batch = (2, 3)
    states, actions = state.expand(*batch, *state.shape).clone(), action.expand(*batch, *action.shape).clone()
    try:
        values = reward(states, actions, states)
    except Exception as error:  # it may raise anything
        raise ConfigurationError(f"{name} failed on a batch: {type(error).__name__}: {error}") from error
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape != batch or not values.is_floating_point():
        raise ConfigurationError(
            f"{name} must return a tensor of floats with one value for every step: for states "
            f"{tuple(states.shape)} it returned {shape}, not {batch}"
        )
