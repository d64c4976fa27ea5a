"""Episodes of one fitted agent on its own simulator, all stepped together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from persim_lightning.api.action_space import one_category_each
from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.tables.minari import trajectory_spaces
from persim_lightning.errors import ConfigurationError
from persim_lightning.planning.objective import Reward, Termination


class Step(NamedTuple):
    """What a step of B episodes came to, each of shape (B,).

    Attributes
    ----------
    reward : ndarray of float64
        Zero where the episode diverged.
    terminated, truncated, diverged : ndarray of bool
        An episode whose next state is not finite is cut and keeps its last one.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    diverged: np.ndarray


class SimulatedEpisodes:
    """B episodes of one agent on its own simulator.

    Each starts in a state in which the agent was recorded. Every ensemble member goes along a trajectory of its own;
    what is observed is their mean, or one of them.

    Parameters
    ----------
    simulator : PersonalizedSimulator or path
        A path is a run folder, or what :meth:`PersonalizedSimulator.save` wrote.
    agent : int or str
    count : int
        B.
    reward : callable, optional
        (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...); the table's or the
        environment's where not given.
    terminated : callable, optional
        states (..., D) -> (...) bool; likewise.
    max_steps : int, optional
        Steps after which an episode is cut; as many as the longest recorded trajectory has where not given.
    start : {'first', 'any', 'population'}
        Begin where the agent's trajectories began, in any of its recorded states, or where trajectories of any agent
        began.
    member : 'mean', 'random' or int
        What is observed: the members' mean, a member drawn for each episode (so that a policy cannot rely on what one
        of them believes), or always the same one.

    Raises
    ------
    PersimError
        If the agent is unknown or has no recorded state, or no rewards are known.
    """

    def __init__(
        self,
        simulator: PersonalizedSimulator | str | Path,
        agent: int | str,
        count: int = 1,
        *,
        reward: Reward | None = None,
        terminated: Termination | None = None,
        max_steps: int | None = None,
        start: Literal["first", "any", "population"] = "first",
        member: Literal["mean", "random"] | int = "mean",
    ) -> None:
        if not isinstance(simulator, PersonalizedSimulator):
            simulator = PersonalizedSimulator.load(simulator)
        self._dynamics, recorded = simulator.population.personalize(agent), simulator.trajectories
        members = self._dynamics.members
        if start not in ("first", "any", "population"):
            raise ConfigurationError(f"start {start!r}: choose 'first', 'any' or 'population'")
        if member not in ("mean", "random", *range(members)):
            raise ConfigurationError(f"member {member!r}: choose 'mean', 'random' or one of 0 … {members - 1}")
        if max_steps is not None and max_steps < 1:
            raise ConfigurationError(f"max_steps {max_steps} must be at least 1")
        if agent not in recorded.agent_ids:
            raise ConfigurationError(f"agent {agent!r} has no recorded state to start from")
        index = recorded.agent_ids.index(agent)
        first = recorded.offsets[:-1]
        rows = {
            "first": lambda: first[recorded.agent == index],
            "any": lambda: recorded.rows_of_agents(torch.tensor([index])),
            "population": lambda: first,
        }
        self._starts = recorded.state[rows[start]()]
        self._objective = simulator.objective(reward, terminated)
        self._schema, self._member, self.count = recorded.schema, member, count
        self.max_steps = max_steps or int(recorded.lengths.max()) - 1
        self.observation_space, self.action_space = trajectory_spaces(recorded)
        self._states = torch.zeros(members, count, recorded.schema.state_dim)
        self._shown, self._steps = torch.zeros(count, dtype=torch.int64), np.zeros(count, dtype=np.int64)

    def restart(self, rows: np.ndarray, generator: np.random.Generator) -> None:
        """Begin anew in some rows, given by their indices."""
        chosen = torch.from_numpy(generator.integers(len(self._starts), size=len(rows)))
        index = torch.from_numpy(rows)
        self._states[:, index] = self._starts[chosen]
        self._steps[rows] = 0
        if self._member == "random":
            self._shown[index] = torch.from_numpy(generator.integers(len(self._states), size=len(rows)))
        elif self._member != "mean":
            self._shown[index] = self._member

    def observe(self) -> np.ndarray:
        """What is seen, shape (B, D), float32."""
        observed: np.ndarray = self._observed(self._states).numpy().copy()
        return observed

    @torch.no_grad()
    def step(self, actions: np.ndarray) -> Step:
        """Apply actions, (B,) codes or (B, A) amounts; episodes that have ended simply go on.

        Amounts beyond their recorded range count as its ends; of a category's indicators the largest one counts.
        """
        taken = self.realized(np.asarray(actions))
        before, states = self._observed(self._states), self._dynamics.step(self._states, taken)
        diverged = ~states.isfinite().all(-1).all(0)
        states = torch.where(diverged[:, None], self._states, states)
        after = self._observed(states)
        reward = torch.where(diverged, 0.0, self._objective.reward(before, taken, after).double())
        ended = self._objective.terminated(after) & ~diverged
        self._states = states
        self._steps += 1
        cut = ((self._steps >= self.max_steps) | diverged.numpy()) & ~ended.numpy()
        return Step(reward.numpy(), ended.numpy(), cut, diverged.numpy())

    def _observed(self, states: Tensor) -> Tensor:
        if self._member == "mean":
            return states.mean(0)
        return states[self._shown, torch.arange(states.shape[1])]

    def realized(self, actions: np.ndarray) -> Tensor:
        """Actions as they are applied: within their ranges, one category of each set."""
        space = self.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            assert isinstance(space, gymnasium.spaces.Discrete)
            codes = actions.astype(np.int64)
            if bool(((codes != actions) | (codes < 0) | (codes >= space.n)).any()):
                raise ConfigurationError(f"unknown action, expected 0 … {space.n - 1}")
            return torch.from_numpy(codes)
        clipped = np.clip(actions.astype(np.float32), space.low, space.high)
        return one_category_each(torch.from_numpy(clipped), self._schema)
