"""Scores plans by what a model predicts that they return: the mean over ensemble members (PerSim, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from persim_lightning.planning.objective import Objective, pessimistic_mean, trajectory_values

# Rows that are advanced together: enough to fill vector units, few enough for activations to stay in the cache.
_BLOCK_ROWS = 4096
# Plans that begin alike share their beginning while there are at most this share as many beginnings as plans.
_SHARE = 0.5
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
    """Scores plans on a step-by-step model.

    Every member keeps a trajectory of its own; ended plans are soon dropped,
    and discrete plans that begin alike share their beginning.

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
        values = torch.cat([self._values(part, rows) for rows, part in blocks], dim=1)
        return pessimistic_mean(values, self.pessimism).view(batch, count)

    def _values(self, actions: Tensor, owner: Tensor) -> Tensor:
        """Values (M, R) of R plans: actions (H, R)|(H, R, A), and the problems that they belong to, ascending."""
        problems, path = owner.unique_consecutive(return_inverse=True)
        paths = self._start(problems)
        plans = torch.arange(len(owner), device=owner.device)
        values = paths.total.new_empty(paths.total.shape[0], len(owner))
        # Discrete plans that begin alike follow one path until they part.
        sharing, count = not actions.is_floating_point(), 0
        if sharing:
            count = int(actions.max()) + 1
        else:
            paths, path = paths.take(path), plans
        for h, step in enumerate(actions, start=1):
            action = step if len(step) == len(plans) else step[plans]
            if sharing:
                distinct, branch = (path * count + action).unique(return_inverse=True)
                sharing = len(distinct) <= _SHARE * len(plans)
                if sharing:
                    paths, path, action = paths.take(distinct // count), branch, distinct % count
                else:
                    paths, path = paths.take(path), torch.arange(len(plans), device=plans.device)
            paths = self._advance(paths, action)
            if h % _DROP_STEPS:
                continue
            going = paths.running.any(0)
            if int(going.sum()) <= (1 - _DROP_SHARE) * len(going):
                ended = ~going[path]
                values[:, plans[ended]] = self._value(paths)[:, path[ended]]
                plans, path = plans[~ended], (going.cumsum(0) - 1)[path[~ended]]
                paths = paths.take(going.nonzero()[:, 0])
                if not len(plans):
                    break
        values[:, plans] = self._value(paths)[:, path]
        return values

    def _value(self, paths: _Paths) -> Tensor:
        peak = self.objective.peak
        return paths.total if peak is None else paths.total + peak.weight * paths.top

    def _start(self, problems: Tensor) -> _Paths:
        states, members = self.states[problems], self.dynamics.members
        states = states.mT.expand(members, *states.mT.shape).contiguous().mT
        total = states.new_zeros(states.shape[:2])
        top = torch.full_like(total, -torch.inf)
        return _Paths(states, self.agents[problems], total, top, torch.ones_like(total, dtype=torch.bool))

    def _advance(self, paths: _Paths, action: Tensor) -> _Paths:
        """One step further; ended paths move on, but their value stays."""
        states, agents, total, top, running = paths
        following = self.dynamics.step(states, action, agents)
        gain = self.objective.reward(states, action.expand(len(states), *action.shape), following)
        if self.objective.peak is not None:
            top = torch.where(running, top.maximum(following[..., self.objective.peak.coordinate]), top)
        # A reward may not depend on the states, and NaN terminates nothing: a plan that breaks the model must not win.
        # (0 times a sum is the fastest test: infinities give NaN.)
        gain = torch.add(gain, following.sum(-1), alpha=0)
        total = torch.where(running, total + gain, total)
        return _Paths(following, agents, total, top, running & ~self.objective.terminated(following))


class _Paths(NamedTuple):
    """Trajectories under way, of C plans or of all plans with C different beginnings.

    Attributes
    ----------
    states : Tensor, shape (M, C, D)
    agents : Tensor, shape (C,)
    total, top : Tensor, shape (M, C)
        Value so far, and the peak so far.
    running : Tensor, shape (M, C)
        Whether a member has not yet terminated.
    """

    states: Tensor
    agents: Tensor
    total: Tensor
    top: Tensor
    running: Tensor

    def take(self, index: Tensor) -> _Paths:
        """The chosen paths, in that order."""
        values = (part[:, index] for part in (self.total, self.top, self.running))
        return _Paths(self.states.mT[..., index].mT, self.agents[index], *values)


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
        self.clamped += int(((following < self._low) | (following > self._high)).sum())
        self.predicted += following.numel()
        return inside
