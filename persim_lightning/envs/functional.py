"""A batch of environments whose dynamics is a pure function of (states, actions, covariates)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class FunctionalBatch:
    """Steps B environments with one call of a batched dynamics function.

    Parameters
    ----------
    dynamics : callable, (states (B, D), actions (B,), covariates (B, C)) -> next states (B, D)
    covariates : Tensor, shape (B, C), float64
    states : Tensor, shape (B, D), float64
        Initial states.
    """

    def __init__(
        self, dynamics: Callable[[Tensor, Tensor, Tensor], Tensor], covariates: Tensor, states: Tensor
    ) -> None:
        self._dynamics = dynamics
        self._covariates = covariates
        self.states = states

    def step(self, actions: Tensor) -> Tensor:
        self.states = self._dynamics(self.states, actions, self._covariates)
        return self.states
