"""A fitted agent as a gymnasium environment: a single episode, or many in one batch."""

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
    """A fitted agent; importing `persim_lightning.interop` registers it as `persim/Agent-v0`.

    Parameters
    ----------
    simulator : PersonalizedSimulator or path
        A path is a run folder, or a folder that :meth:`PersonalizedSimulator.save` wrote.
    agent : int or str
    render_mode : None
        Rendering is not supported.
    **options
        Rewards, termination, initial states and length of episodes: see
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
        """Start an episode; returns the observation (D,) and an empty info dict."""
        super().reset(seed=seed)
        self._episode.restart(np.zeros(1, dtype=np.int64), self.np_random)
        return self._episode.observe()[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action; `diverged` in `info` is True if the simulated state is not finite."""
        step = self._episode.step(np.asarray(action)[None])
        info = {"diverged": bool(step.diverged[0])}
        return (
            self._episode.observe()[0],
            float(step.reward[0]),
            bool(step.terminated[0]),
            bool(step.truncated[0]),
            info,
        )


class AgentVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many episodes of a fitted agent in one batch; a row whose episode has ended is reset in the next step.

    Parameters
    ----------
    simulator, agent, render_mode, **options
        See :class:`AgentEnv`.
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
        """Start all episodes; returns observations (B, D) and an empty info dict."""
        if isinstance(seed, list):
            raise ConfigurationError("give a single seed: all episodes share one random generator")
        super().reset(seed=seed)
        self._episodes.restart(np.arange(self.num_envs), self.np_random)
        self._ended[:] = False
        return self._episodes.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply actions; rows whose episode ended in the step before are reset instead, with reward zero."""
        is_reset = self._ended
        step = self._episodes.step(actions)
        self._episodes.restart(np.flatnonzero(is_reset), self.np_random)
        reward = np.where(is_reset, 0.0, step.reward)
        terminated, truncated = step.terminated & ~is_reset, step.truncated & ~is_reset
        self._ended = terminated | truncated
        return self._episodes.observe(), reward, terminated, truncated, {"diverged": step.diverged & ~is_reset}
