"""Simulated episodes of one fitted agent, all in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from persim_lightning.api.action_space import decided_coordinates, one_category_each
from persim_lightning.api.planning import encoded_inputs
from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.tables.minari import trajectory_spaces
from persim_lightning.errors import ConfigurationError
from persim_lightning.planning.objective import Reward, Termination


class Step(NamedTuple):
    """Result of a step of B episodes, each of shape (B,).

    Attributes
    ----------
    reward : ndarray of float64
        Zero if the episode diverged.
    terminated, truncated, diverged : ndarray of bool
        An episode diverges if its next state is not finite; it is truncated and keeps its last state.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    diverged: np.ndarray


class SimulatedEpisodes:
    """B episodes of one agent on the agent's simulator.

    Every ensemble member simulates its own trajectory of each episode. The observation is their mean, or the state of
    one member.

    Parameters
    ----------
    simulator : PersonalizedSimulator or path
        A path is a run folder, or a folder that :meth:`PersonalizedSimulator.save` wrote.
    agent : int or str
    count : int
        B.
    reward : callable, optional
        (states (..., D), actions (...)|(..., A), next_states (..., D)) -> rewards (...). By default the reward that was
        learned from the table, or the environment's.
    terminated : callable, optional
        states (..., D) -> (...) bool. The default is as for `reward`.
    max_steps : int, optional
        Truncate episodes after so many steps; by default the length of the longest recorded trajectory.
    start : {'first', 'any', 'population'}
        Initial states: the first states of the agent's trajectories, any of the agent's recorded states, or the first
        states of all agents' trajectories.
    member : 'mean', 'random' or int
        Observed state: the mean over members, a random member for each episode (so that a policy cannot exploit the
        errors of one member), or always the member with this index.
    inputs : mapping of input column to `max_steps` values, optional
        Values of the inputs in every episode; required if the table has inputs, which are no part of the actions.

    Raises
    ------
    PersimError
        If the agent is unknown or has no recorded state, there are no rewards, or an option is invalid.
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
        inputs: Mapping[str, Sequence[Any]] | None = None,
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
        self._inputs = encoded_inputs(inputs, recorded.schema, self.max_steps)
        self.observation_space, self.action_space = trajectory_spaces(recorded)
        if self._inputs is not None:
            assert isinstance(self.action_space, gymnasium.spaces.Box)
            count = decided_coordinates(recorded.schema)
            low, high = self.action_space.low[:count], self.action_space.high[:count]
            self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self._states = torch.zeros(members, count, recorded.schema.state_dim, dtype=recorded.schema.state_dtype)
        self._observed_member = torch.zeros(count, dtype=torch.int64)
        self._steps = np.zeros(count, dtype=np.int64)

    def restart(self, rows: np.ndarray, generator: np.random.Generator) -> None:
        """Start new episodes in the rows with these indices."""
        drawn = torch.from_numpy(generator.integers(len(self._starts), size=len(rows)))
        index = torch.from_numpy(rows)
        self._states[:, index] = self._starts[drawn]
        self._steps[rows] = 0
        if self._member == "random":
            self._observed_member[index] = torch.from_numpy(generator.integers(len(self._states), size=len(rows)))
        elif self._member != "mean":
            self._observed_member[index] = self._member

    def observe(self) -> np.ndarray:
        """Return the observations, shape (B, D), of the schema's type."""
        observation: np.ndarray = self._observe_members(self._states).numpy().copy()
        return observation

    @torch.no_grad()
    def step(self, actions: np.ndarray) -> Step:
        """Apply actions, (B,) codes or (B, A) continuous; episodes that have ended continue until they are restarted.

        See :meth:`realized` for actions outside the action space.
        """
        realized = self.realized(np.asarray(actions))
        if self._inputs is not None:
            given = self._inputs[np.minimum(self._steps, self.max_steps - 1)]
            realized = torch.cat((realized, given.to(realized)), dim=-1)
        before, states = self._observe_members(self._states), self._dynamics.step(self._states, realized)
        diverged = ~states.isfinite().all(-1).all(0)
        states = torch.where(diverged[:, None], self._states, states)
        after = self._observe_members(states)
        reward = torch.where(diverged, 0.0, self._objective.reward(before, realized, after).double())
        terminated = self._objective.terminated(after) & ~diverged
        self._states = states
        self._steps += 1
        truncated = ((self._steps >= self.max_steps) | diverged.numpy()) & ~terminated.numpy()
        return Step(reward.numpy(), terminated.numpy(), truncated, diverged.numpy())

    def _observe_members(self, states: Tensor) -> Tensor:
        """Members' states (M, B, D) -> the observed ones (B, D)."""
        if self._member == "mean":
            return states.mean(0)
        return states[self._observed_member, torch.arange(states.shape[1])]

    def realized(self, actions: np.ndarray) -> Tensor:
        """Project actions to valid ones: clip them to recorded ranges, and keep only the largest indicator of a column.

        Raises
        ------
        ConfigurationError
            If a code is unknown.
        """
        space = self.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            assert isinstance(space, gymnasium.spaces.Discrete)
            codes = actions.astype(np.int64)
            if bool(((codes != actions) | (codes < 0) | (codes >= space.n)).any()):
                raise ConfigurationError(f"unknown action, expected 0 … {space.n - 1}")
            return torch.from_numpy(codes)
        clipped = np.clip(actions.astype(np.float32), space.low, space.high)
        return one_category_each(torch.from_numpy(clipped), self._schema)
