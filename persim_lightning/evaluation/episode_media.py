"""Draws episodes of MPC as figures and videos."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from persim_lightning.data.collecting.episodes import Episodes
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import atomic_write

VIDEO_FORMATS = (".gif", ".mp4")
_MAX_COORDINATES = 4


def draw_episodes(
    environment: Environment, episodes: Episodes, rows: Sequence[int], labels: Sequence[str], path: Path
) -> Path:
    """Draw state coordinates, the action and the cumulative reward against time, one line per episode.

    Parameters
    ----------
    environment : Environment
    episodes : Episodes
    rows : sequence of int
        Episodes to draw.
    labels : sequence of str
    path : Path
        PNG.
    """
    import matplotlib.pyplot as plt  # late: most runs draw no episode

    names = environment.state_names[:_MAX_COORDINATES]
    figure, panels = plt.subplots(len(names) + 2, 1, figsize=(9, 2 * len(names) + 4), sharex=True, layout="constrained")
    for row, label in zip(rows, labels, strict=True):
        length = int(episodes.lengths[row])
        for index, panel in enumerate(panels[: len(names)]):
            panel.plot(episodes.states[row, : length + 1, index], label=label)
        action = episodes.actions[row, :length]
        panels[-2].plot(action if action.ndim == 1 else action[:, 0], drawstyle="steps-post", linewidth=0.8)
        panels[-1].plot(episodes.rewards[row, :length].cumsum(0))
    titles = (*names, environment.action_names[0], "cumulative reward")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    if environment.num_actions is not None:
        panels[-2].set_yticks(range(environment.num_actions))
    figure.suptitle(f"{environment.name}: one episode per agent, planned on the agent's simulator")
    panels[-1].set_xlabel("step")
    panels[0].legend(ncols=len(labels), fontsize="small")
    return save_figure(figure, path)


def draw_first_episodes(environment: Environment, episodes: Episodes, agents: Sequence[int | str], path: Path) -> Path:
    """Draw the first episode of each agent; `episodes` contains the same number for every agent, agent by agent."""
    rows = range(0, len(episodes.lengths), len(episodes.lengths) // len(agents))
    return draw_episodes(environment, episodes, rows, [f"agent {agent}" for agent in agents], path)


def check_video(environment: Environment, path: Path) -> None:
    """Check that a video can be made, before episodes are played.

    Raises
    ------
    ConfigurationError
        If the format is unknown, or gymnasium cannot render the environment on this machine.
    """
    if path.suffix not in VIDEO_FORMATS:
        raise ConfigurationError(f"{path}: videos are written as {' or '.join(VIDEO_FORMATS)}")
    try:
        if path.suffix == ".mp4":
            importlib.import_module("av")
        env = _renderer(environment, environment.default_agent)
        env.render()
        env.close()
    except Exception as error:  # renderers raise exceptions of their libraries
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigurationError(
            f"{path}: cannot render {environment.name} on this machine ({reason}); "
            "pip install 'persim-lightning[video]'"
        ) from error


def film_episode(
    environment: Environment, covariates: Sequence[float], episodes: Episodes, row: int, path: Path
) -> Path:
    """Render an episode with gymnasium, state by state, and write a video.

    Parameters
    ----------
    environment : Environment
    covariates : sequence of float
        Covariates of the episode's agent.
    episodes : Episodes
    row : int
        Index of the episode.
    path : Path
        .gif or .mp4.
    """
    import imageio.v3 as iio  # late: few runs write a video

    env = _renderer(environment, covariates)
    frames = []
    length = int(episodes.lengths[row])
    for state, action in zip(episodes.states[row, :length], episodes.actions[row, :length], strict=True):
        # Set to the recorded state at every step: small differences would add up to a different episode.
        environment.set_state(env.unwrapped, state.numpy())
        frames.append(env.render())
        env.step(action.numpy() if action.ndim else int(action))
    frames.append(env.render())
    rate = env.metadata["render_fps"]
    env.close()
    options: dict[str, Any] = {"plugin": "pyav", "codec": "h264", "fps": rate}
    if path.suffix == ".gif":
        options = {"plugin": "pillow", "duration": 1000 / rate, "loop": 0}
    with atomic_write(path) as temporary:
        # Name the format: imageio cannot infer it from the temporary file.
        iio.imwrite(temporary, np.stack(frames), extension=path.suffix, **options)
    return path


def _renderer(environment: Environment, covariates: Sequence[float]) -> Any:
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        # By default, the renderers need a display.
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    named: dict[str, Any] = environment.covariate_dict(covariates)
    env = gymnasium.make(environment.gym_id, render_mode="rgb_array", **named)
    env.reset(seed=0)
    return env
