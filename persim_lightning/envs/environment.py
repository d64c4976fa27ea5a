"""An environment as names, ranges and batched functions: the only interface that the rest of the package uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from persim_lightning.types import Schema


class Covariate(NamedTuple):
    """A hidden parameter in which agents differ.

    Populations draw it uniformly from [low, high]; the default agent has `default`.
    """

    name: str
    low: float
    high: float
    default: float


class EnvironmentBatch(Protocol):
    """B independent copies of an environment with different covariates.

    Attributes
    ----------
    states : Tensor, shape (B, D), float64
        The current states. Nothing is reset automatically: the dynamics continue after termination.
    """

    states: Tensor

    def step(self, actions: Tensor) -> Tensor:
        """Apply actions, (B,) integers or (B, A) floats, and return the next states (B, D)."""
        ...


@dataclass(frozen=True)
class Environment:
    """A family of environments: the same equations, with different covariates for every agent.

    Attributes
    ----------
    name : str
        Short name, used on command lines and in file names.
    gym_id : str
        Id of the registered gymnasium environment, which takes the covariates as keyword arguments.
    state_names, action_names : tuple of str
        Column names. A discrete action has one column.
    num_actions : int or None
        Number of discrete actions; None if actions are continuous, in [-1, 1].
    covariates : tuple of Covariate
    test_agents, policy_training_agents : tuple of tuple of float
        Covariates of the agents with ids 0-4, and of the agents on which behavior policies are trained.
    max_steps : int
        Steps after which an episode is truncated.
    make_batch : callable, (covariates (B, C), seed) -> EnvironmentBatch
    reward : callable, (states (..., D), actions (...)|(..., A), next_states (..., D)) -> (...)
    terminated : callable, (states (..., D)) -> (...) bool
    rollout : callable, (covariates (B, C), states (B, D), plans (B, P, H)|(B, P, H, A)) -> (1, B, P, H+1, D)
        True trajectories under many plans, in the form of an ensemble with one member.
    set_state : callable, (gymnasium environment, state (D,)) -> None
        Sets the state of an unwrapped gymnasium environment.
    """

    name: str
    gym_id: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    num_actions: int | None
    covariates: tuple[Covariate, ...]
    test_agents: tuple[tuple[float, ...], ...]
    policy_training_agents: tuple[tuple[float, ...], ...]
    max_steps: int
    make_batch: Callable[[Tensor, int], EnvironmentBatch]
    reward: Callable[[Tensor, Tensor, Tensor], Tensor]
    terminated: Callable[[Tensor], Tensor]
    rollout: Callable[[Tensor, Tensor, Tensor], Tensor]
    set_state: Callable[[Any, np.ndarray], None]
    rewarded: ClassVar[bool] = True

    @property
    def schema(self) -> Schema:
        """Columns of this environment's tables."""
        return Schema(self.state_names, self.action_names, self.num_actions)

    @property
    def default_agent(self) -> tuple[float, ...]:
        """Covariates of the default agent."""
        return tuple(covariate.default for covariate in self.covariates)

    def covariate_dict(self, covariates: Sequence[float]) -> dict[str, float]:
        """Return an agent's covariates by name: the keyword arguments of the gymnasium environment."""
        return {covariate.name: value for covariate, value in zip(self.covariates, covariates, strict=True)}
