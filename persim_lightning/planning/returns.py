"""Scores plans by what a model predicts that they return: the mean over ensemble members (PerSim, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from persim_lightning.planning.objective import Objective, pessimistic_mean, trajectory_values

# Rows that are advanced together: enough to fill vector units, few enough for activations to stay in the cache.
_BLOCK_ROWS = 4096
# Every so many steps, rows of ended plans are dropped if this share of all rows would go.
_DROP_STEPS, _DROP_SHARE = 4, 0.2


class Dynamics(Protocol):
    """A model that predicts one step for M members at once.

    Attributes
    ----------
    members : int
    """

    members: int

    def step(self, states: Tensor, actions: Tensor, agents: Tensor) -> Tensor:
        """States (M, B, D), actions (B,)|(B, A), the rows' agents (B,) in ascending order -> next states (M, B, D)."""
        ...


@dataclass(frozen=True)
class EnsembleReturns:
    """Scores plans on a step-by-step model; every member keeps a trajectory of its own, and ended plans cost nothing.

    Parameters
    ----------
    dynamics : Dynamics
    objective : Objective
    states : Tensor, shape (B, D)
        Current state of each problem.
    agents : Tensor, shape (B,), int64
        Agent of each problem, ascending, as `dynamics` numbers them.
    pessimism : float
        κ of the score `mean - κ·std` over members.
    """

    dynamics: Dynamics
    objective: Objective
    states: Tensor
    agents: Tensor
    pessimism: float = 0.0

    def __call__(self, plans: Tensor) -> Tensor:
        """Plans (B, P, H)|(B, P, H, A) -> (B, P)."""
        batch, count = plans.shape[:2]
        actions = plans.flatten(0, 1).transpose(0, 1).contiguous()
        owner = torch.arange(batch, device=plans.device).repeat_interleave(count)
        blocks = zip(owner.split(_BLOCK_ROWS), actions.split(_BLOCK_ROWS, dim=1), strict=True)
        values = torch.cat([self._values(self.states[rows], part, self.agents[rows]) for rows, part in blocks], dim=1)
        return pessimistic_mean(values, self.pessimism).view(batch, count)

    def _values(self, states: Tensor, actions: Tensor, agents: Tensor) -> Tensor:
        """Values (M, R) of R plans: states (R, D), actions (H, R)|(H, R, A), agents (R,)."""
        members, rows = self.dynamics.members, torch.arange(len(states), device=states.device)
        states = states.mT.expand(members, *states.mT.shape).contiguous().mT
        values = states.new_zeros(members, len(rows))
        peak = states.new_full(values.shape, -torch.inf)
        running = torch.ones_like(values, dtype=torch.bool)
        # Sums of the plans still under way; `rows` tells where they belong.
        total, top = values.clone(), peak.clone()
        for h, step in enumerate(actions, start=1):
            action = step if len(step) == len(rows) else step[rows]
            following = self.dynamics.step(states, action, agents)
            reward = self.objective.reward(states, action.expand(members, *action.shape), following)
            total = torch.where(running, total + reward, total)
            if self.objective.peak is not None:
                reached = following[..., self.objective.peak.coordinate]
                top = torch.where(running, top.maximum(reached), top)
            running = running & ~self.objective.terminated(following)
            states = following
            if h % _DROP_STEPS:
                continue
            going = running.any(0)
            if int(going.sum()) <= (1 - _DROP_SHARE) * len(rows):
                values[:, rows], peak[:, rows] = total, top
                keep = going.nonzero()[:, 0]
                rows, agents, total, top, running = (
                    rows[keep],
                    agents[keep],
                    total[:, keep],
                    top[:, keep],
                    running[:, keep],
                )
                states = states.mT[..., keep].mT
                if not len(rows):
                    break
        values[:, rows], peak[:, rows] = total, top
        return values if self.objective.peak is None else values + self.objective.peak.weight * peak


@dataclass(frozen=True)
class TrajectoryReturns:
    """Scores plans on a model that gives whole trajectories, such as the true environment's.

    Parameters
    ----------
    rollout : callable, (states (B, D), plans (B, P, H)|(B, P, H, A)) -> (M, B, P, H+1, D)
    objective : Objective
    states : Tensor, shape (B, D)
    pessimism : float
    """

    rollout: Callable[[Tensor, Tensor], Tensor]
    objective: Objective
    states: Tensor
    pessimism: float = 0.0

    def __call__(self, plans: Tensor) -> Tensor:
        """Plans (B, P, H)|(B, P, H, A) -> (B, P)."""
        trajectories = self.rollout(self.states, plans)
        actions = plans.expand(len(trajectories), *plans.shape)
        return pessimistic_mean(trajectory_values(self.objective, trajectories, actions), self.pessimism)


class ClampedDynamics:
    """Keeps predicted states within a range, and counts how often that was needed.

    Parameters
    ----------
    dynamics : Dynamics
    low, high : Tensor, shape (D,)

    Attributes
    ----------
    clamped, predicted : int
        State coordinates that were clamped, and all that were predicted.
    """

    def __init__(self, dynamics: Dynamics, low: Tensor, high: Tensor) -> None:
        self._dynamics, self._low, self._high = dynamics, low, high
        self.members = dynamics.members
        self.clamped = self.predicted = 0

    def step(self, states: Tensor, actions: Tensor, agents: Tensor) -> Tensor:
        following = self._dynamics.step(states, actions, agents)
        inside = following.clamp(self._low, self._high)
        self.clamped += int((inside != following).sum())
        self.predicted += following.numel()
        return inside
