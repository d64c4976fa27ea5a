"""Scores plans by what a model predicts that they return: the mean over ensemble members (PerSim, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from persim_lightning.planning.chance import SharedChance
from persim_lightning.planning.objective import Objective, Outcome, advance, pessimistic_mean, trajectory_values

# Rows that are advanced together: enough to fill vector units, few enough for activations to stay in the cache.
_BLOCK_ROWS = 4096
# Plans that begin alike share their beginning while there are at most this share as many beginnings as plans.
_SHARE = 0.5
# Steps that are judged together: rewards and terminations are many small operations, dear when done step by step.
_STRETCH = 5
# After a stretch, rows of ended plans are dropped if this share of all rows would go.
_DROP_SHARE = 0.2


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
    chance : SharedChance, optional
        Noise of `dynamics`, where it predicts distributions.
    """

    dynamics: Dynamics
    objective: Objective
    states: Tensor
    agents: Tensor
    pessimism: float = 0.0
    chance: SharedChance | None = None

    def __call__(self, plans: Tensor) -> Tensor:
        """Plans (B, P, H)|(B, P, H, A) -> (B, P)."""
        if self.chance is not None:
            self.chance.renew()
        batch, count = plans.shape[:2]
        actions = plans.flatten(0, 1).transpose(0, 1).contiguous()
        owner = torch.arange(batch, device=plans.device).repeat_interleave(count)
        blocks = zip(owner.split(_BLOCK_ROWS), actions.split(_BLOCK_ROWS, dim=1), strict=True)
        values = torch.cat([self._values(part, rows) for rows, part in blocks], dim=1)
        return pessimistic_mean(values, self.pessimism).view(batch, count)

    def _values(self, actions: Tensor, owner: Tensor) -> Tensor:
        """Values (M, R) of R plans: actions (H, R)|(H, R, A), and the problems that they belong to, ascending."""
        if self.chance is not None:
            self.chance.rewind()
        paths, path, actions = self._shared_beginning(actions, owner)
        paths = paths.take(path)
        plans = torch.arange(len(owner), device=owner.device)
        values = paths.outcome.total.new_empty(paths.outcome.total.shape[0], len(owner))
        for stretch in actions.split(_STRETCH) if len(actions) else ():
            paths = self._advance(paths, stretch if len(plans) == len(owner) else stretch[:, plans])
            going = paths.outcome.running.any(0)
            if int(going.sum()) <= (1 - _DROP_SHARE) * len(going):
                ended = ~going
                values[:, plans[ended]] = paths.outcome.value(self.objective)[:, ended]
                plans, paths = plans[going], paths.take(going.nonzero()[:, 0])
                if not len(plans):
                    return values
        values[:, plans] = paths.outcome.value(self.objective)
        return values

    def _shared_beginning(self, actions: Tensor, owner: Tensor) -> tuple[_Paths, Tensor, Tensor]:
        """Discrete plans that begin alike follow one path until they part.

        Returns
        -------
        paths : _Paths
        path : Tensor, shape (R,), int64
            Which path each plan has followed.
        actions : Tensor, shape (H', R) or (H', R, A)
            Those that are left.
        """
        problems, path = owner.unique_consecutive(return_inverse=True)
        states, members = self.states[problems], self.dynamics.members
        states = states.mT.expand(members, *states.mT.shape).contiguous().mT
        paths = _Paths(states, self.agents[problems], Outcome.start(states[..., 0]))
        if actions.is_floating_point():
            return paths, path, actions
        count = int(actions.max()) + 1
        for h, action in enumerate(actions):
            distinct, branch = (path * count + action).unique(return_inverse=True)
            if len(distinct) > _SHARE * len(owner):
                return paths, path, actions[h:]
            paths, path = self._advance(paths.take(distinct // count), (distinct % count)[None]), branch
        return paths, path, actions[len(actions) :]

    def _advance(self, paths: _Paths, actions: Tensor) -> _Paths:
        """K steps further, actions (K, C)|(K, C, A); ended paths move on, but their value stays."""
        states = [paths.states]
        for action in actions:
            states.append(self.dynamics.step(states[-1], action, paths.agents))
        # (M, K+1, D, C) in memory: rows last, as the dynamics gives them.
        trajectory = torch.stack([step.mT for step in states], dim=1).permute(0, 3, 1, 2)
        taken = actions.transpose(0, 1).expand(len(trajectory), *actions.transpose(0, 1).shape)
        return _Paths(states[-1], paths.agents, advance(self.objective, paths.outcome, trajectory, taken))


class _Paths(NamedTuple):
    """Trajectories under way, of C plans or of all plans with C different beginnings.

    Attributes
    ----------
    states : Tensor, shape (M, C, D)
    agents : Tensor, shape (C,)
    outcome : Outcome, shapes (M, C)
    """

    states: Tensor
    agents: Tensor
    outcome: Outcome

    def take(self, index: Tensor) -> _Paths:
        """The chosen paths, in that order."""
        outcome = Outcome(*(part[:, index] for part in self.outcome))
        return _Paths(self.states.mT[..., index].mT, self.agents[index], outcome)


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
