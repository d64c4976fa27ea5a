"""Environments whose dynamics are a pure function of (states, actions, covariates)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

Dynamics = Callable[[Tensor, Tensor, Tensor], Tensor]


class FunctionalBatch:
    """B environments that one call of a batched dynamics function steps together.

    Parameters
    ----------
    dynamics : callable, (states (B, D), actions (B,), covariates (B, C)) -> next states (B, D)
    covariates : Tensor, shape (B, C), float64
    states : Tensor, shape (B, D), float64
        Initial states.
    """

    def __init__(self, dynamics: Dynamics, covariates: Tensor, states: Tensor) -> None:
        self._dynamics = dynamics
        self._covariates = covariates
        self.states = states

    def step(self, actions: Tensor) -> Tensor:
        self.states = self._dynamics(self.states, actions, self._covariates)
        return self.states


def rollout(dynamics: Dynamics, covariates: Tensor, states: Tensor, plans: Tensor) -> Tensor:
    """Simulate B agents under P plans each.

    Parameters
    ----------
    dynamics : callable, (states (..., D), actions (...), covariates (..., C)) -> next states (..., D)
    covariates : Tensor, shape (B, C)
    states : Tensor, shape (B, D)
        Initial states.
    plans : Tensor, shape (B, P, H)

    Returns
    -------
    Tensor, shape (1, B, P, H+1, D)
    """
    batch, count, horizon = plans.shape
    trajectory = states.new_empty(batch, count, horizon + 1, states.shape[-1])
    trajectory[:, :, 0] = states[:, None]
    for h in range(horizon):
        trajectory[:, :, h + 1] = dynamics(trajectory[:, :, h], plans[:, :, h], covariates[:, None])
    return trajectory[None]


def set_state(env: Any, state: np.ndarray) -> None:
    """Set the state of one of gymnasium's classic control environments, unwrapped."""
    env.state = np.array(state)
