"""A fitted agent as a gymnasium environment: one episode at a time, or many in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError
from persim_lightning.interop.simulated_episodes import SimulatedEpisodes


class AgentEnv(gymnasium.Env[np.ndarray, Any]):
    """A fitted agent, registered as `persim/Agent-v0` by importing `persim_lightning.interop`.

    Parameters
    ----------
    simulator : PersonalizedSimulator or path
        A path is a run folder, or what :meth:`PersonalizedSimulator.save` wrote.
    agent : int or str
    render_mode : None
        There is nothing to render.
    **options
        Rewards, ends, starts and length of episodes: see
        :class:`~persim_lightning.interop.simulated_episodes.SimulatedEpisodes`.
    """

    metadata = {"render_modes": []}

    def __init__(
        self, simulator: PersonalizedSimulator | str | Path, agent: int | str, render_mode: None = None, **options: Any
    ) -> None:
        self._episode = SimulatedEpisodes(simulator, agent, 1, **options)
        self.observation_space, self.action_space = self._episode.observation_space, self._episode.action_space
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode: observation (D,) and no information."""
        super().reset(seed=seed)
        self._episode.restart(np.zeros(1, dtype=np.int64), self.np_random)
        return self._episode.observe()[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action; the information says whether the simulated state `diverged`."""
        step = self._episode.step(np.asarray(action)[None])
        told = {"diverged": bool(step.diverged[0])}
        return (
            self._episode.observe()[0],
            float(step.reward[0]),
            bool(step.terminated[0]),
            bool(step.truncated[0]),
            told,
        )


class AgentVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many episodes of a fitted agent in one batch; a row that has ended begins anew in the next step.

    Parameters
    ----------
    simulator, agent, render_mode, **options
        As for :class:`AgentEnv`.
    num_envs : int
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        simulator: PersonalizedSimulator | str | Path,
        agent: int | str,
        num_envs: int = 1,
        render_mode: None = None,
        **options: Any,
    ) -> None:
        self._episodes = SimulatedEpisodes(simulator, agent, num_envs, **options)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space = self._episodes.observation_space
        self.single_action_space = self._episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all episodes anew: observations (B, D)."""
        if isinstance(seed, list):
            raise ConfigurationError("give one seed: all episodes draw from one source of chance")
        super().reset(seed=seed)
        self._episodes.restart(np.arange(self.num_envs), self.np_random)
        self._ended[:] = False
        return self._episodes.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply actions; rows that ended in the step before begin anew instead, with reward zero."""
        fresh = self._ended
        step = self._episodes.step(actions)
        self._episodes.restart(np.flatnonzero(fresh), self.np_random)
        reward = np.where(fresh, 0.0, step.reward)
        terminated, truncated = step.terminated & ~fresh, step.truncated & ~fresh
        self._ended = terminated | truncated
        return self._episodes.observe(), reward, terminated, truncated, {"diverged": step.diverged & ~fresh}
