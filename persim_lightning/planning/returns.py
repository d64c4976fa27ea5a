"""Score plans by the returns that a model predicts, averaged over ensemble members (PerSim, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from persim_lightning.planning.objective import Objective, Outcome, advance, pessimistic_mean, trajectory_values
from persim_lightning.planning.shared_noise import SharedNoise

# Plans that are simulated together: enough for vectorization, few enough for activations to stay in the cache.
_BLOCK_ROWS = 4096
# Plans with equal first actions are simulated once, while the number of different prefixes is at most this fraction of
# the number of plans.
_MAX_PREFIXES = 0.5
# Number of steps whose rewards and terminations are computed at once: these are many small operations, which are slow
# when done for every step.
_CHUNK_STEPS = 5
# After a chunk, the rows of ended plans are dropped if they are at least this fraction of all rows.
_DROP_FRACTION = 0.2


class Dynamics(Protocol):
    """A model that predicts one step for M members at once.

    Attributes
    ----------
    members : int
    """

    members: int

    def step(self, states: Tensor, actions: Tensor, agents: Tensor) -> Tensor:
        """Predict next states: states (M, B, D), actions (B,)|(B, A), agents (B,), ascending -> (M, B, D)."""
        ...


@dataclass(frozen=True)
class EnsembleReturns:
    """Score plans with a model that predicts step by step.

    Every ensemble member simulates a separate trajectory. Two savings: rows of ended plans are dropped, and discrete
    plans with equal first actions are simulated once until they differ.

    Parameters
    ----------
    dynamics : Dynamics
    objective : Objective
    states : Tensor, shape (B, D)
        Current state of each problem.
    agents : Tensor, shape (B,), int64
        Agent of each problem, ascending; the indices that `dynamics` expects.
    pessimism : float
        κ of the score `mean - κ·std` over members.
    noise : SharedNoise, optional
        Noise of `dynamics`, if it predicts distributions.
    """

    dynamics: Dynamics
    objective: Objective
    states: Tensor
    agents: Tensor
    pessimism: float = 0.0
    noise: SharedNoise | None = None

    def __call__(self, plans: Tensor) -> Tensor:
        """Score plans: (B, P, H)|(B, P, H, A) -> (B, P)."""
        if self.noise is not None:
            self.noise.reset()
        batch, count = plans.shape[:2]
        actions = plans.flatten(0, 1).transpose(0, 1).contiguous()
        problem = torch.arange(batch, device=plans.device).repeat_interleave(count)
        blocks = zip(actions.split(_BLOCK_ROWS, dim=1), problem.split(_BLOCK_ROWS), strict=True)
        values = torch.cat([self._values(*block) for block in blocks], dim=1)
        return pessimistic_mean(values, self.pessimism).view(batch, count)

    def _values(self, actions: Tensor, problem: Tensor) -> Tensor:
        """Compute the values (M, R) of R plans, from their actions (H, R)|(H, R, A) and problems (R,), ascending."""
        if self.noise is not None:
            self.noise.rewind()
        trajectories, index, actions = self._simulate_prefixes(actions, problem)
        trajectories = trajectories.select(index)
        plans = torch.arange(len(problem), device=problem.device)
        values = trajectories.outcome.total.new_empty(trajectories.outcome.total.shape[0], len(problem))
        for chunk in actions.split(_CHUNK_STEPS) if len(actions) else ():
            trajectories = self._advance(trajectories, chunk if len(plans) == len(problem) else chunk[:, plans])
            running = trajectories.outcome.running.any(0)
            if int(running.sum()) <= (1 - _DROP_FRACTION) * len(running):
                ended = ~running
                values[:, plans[ended]] = trajectories.outcome.value(self.objective)[:, ended]
                plans, trajectories = plans[running], trajectories.select(running.nonzero()[:, 0])
                if not len(plans):
                    return values
        values[:, plans] = trajectories.outcome.value(self.objective)
        return values

    def _simulate_prefixes(self, actions: Tensor, problem: Tensor) -> tuple[_Trajectories, Tensor, Tensor]:
        """Simulate the first steps of discrete plans, once for all plans with equal actions so far.

        Returns
        -------
        trajectories : _Trajectories
            One for every different prefix.
        index : Tensor, shape (R,), int64
            Each plan's index in `trajectories`.
        actions : Tensor, shape (H', R) or (H', R, A)
            The remaining actions.
        """
        problems, index = problem.unique_consecutive(return_inverse=True)
        states, members = self.states[problems], self.dynamics.members
        states = states.mT.expand(members, *states.mT.shape).contiguous().mT
        trajectories = _Trajectories(states, self.agents[problems], Outcome.start(states[..., 0]))
        if actions.is_floating_point():
            return trajectories, index, actions
        count = int(actions.max()) + 1
        for h, action in enumerate(actions):
            distinct, next_index = (index * count + action).unique(return_inverse=True)
            if len(distinct) > _MAX_PREFIXES * len(problem):
                return trajectories, index, actions[h:]
            trajectories = self._advance(trajectories.select(distinct // count), (distinct % count)[None])
            index = next_index
        return trajectories, index, actions[len(actions) :]

    def _advance(self, trajectories: _Trajectories, actions: Tensor) -> _Trajectories:
        """Simulate K further steps, actions (K, C)|(K, C, A), also of ended trajectories; their value stays."""
        states = [trajectories.states]
        for action in actions:
            states.append(self.dynamics.step(states[-1], action, trajectories.agents))
        # In memory (M, K+1, D, C), the layout that the dynamics return.
        history = torch.stack([step.mT for step in states], dim=1).permute(0, 3, 1, 2)
        taken = actions.transpose(0, 1).expand(len(history), *actions.transpose(0, 1).shape)
        outcome = advance(self.objective, trajectories.outcome, history, taken)
        return _Trajectories(states[-1], trajectories.agents, outcome)


class _Trajectories(NamedTuple):
    """Current states and outcomes of C trajectories.

    Attributes
    ----------
    states : Tensor, shape (M, C, D)
    agents : Tensor, shape (C,)
    outcome : Outcome, shapes (M, C)
    """

    states: Tensor
    agents: Tensor
    outcome: Outcome

    def select(self, index: Tensor) -> _Trajectories:
        """Select trajectories by index."""
        outcome = Outcome(*(value[:, index] for value in self.outcome))
        return _Trajectories(self.states.mT[..., index].mT, self.agents[index], outcome)


@dataclass(frozen=True)
class TrajectoryReturns:
    """Score plans with a function that returns whole trajectories, such as a true environment's `rollout`.

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
        """Score plans: (B, P, H)|(B, P, H, A) -> (B, P)."""
        trajectories = self.rollout(self.states, plans)
        actions = plans.expand(len(trajectories), *plans.shape)
        return pessimistic_mean(trajectory_values(self.objective, trajectories, actions), self.pessimism)


class ClampedDynamics:
    """Clamp predicted states to a range and count clamped coordinates.

    Parameters
    ----------
    dynamics : Dynamics
    low, high : Tensor, shape (D,)

    Attributes
    ----------
    clamped, predicted : int
        Number of state coordinates that were clamped, and of all that were predicted.
    """

    def __init__(self, dynamics: Dynamics, low: Tensor, high: Tensor) -> None:
        self._dynamics, self._low, self._high = dynamics, low, high
        self.members = dynamics.members
        self.clamped = self.predicted = 0

    def step(self, states: Tensor, actions: Tensor, agents: Tensor) -> Tensor:
        predicted = self._dynamics.step(states, actions, agents)
        self.clamped += int(((predicted < self._low) | (predicted > self._high)).sum())
        self.predicted += predicted.numel()
        return predicted.clamp(self._low, self._high)
