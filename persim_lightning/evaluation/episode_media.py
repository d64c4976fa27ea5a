"""Shows episodes: a picture of their course, and a video of one."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as iio
import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from persim_lightning.data.episodes import Episodes
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.figures import save_figure
from persim_lightning.files import atomic_write

VIDEO_FORMATS = (".gif", ".mp4")
_MAX_COORDINATES = 4


def draw_episodes(
    environment: Environment, episodes: Episodes, rows: Sequence[int], labels: Sequence[str], path: Path
) -> Path:
    """Draw state coordinates, the action and the return so far against time, one line per episode.

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
    names = environment.state_names[:_MAX_COORDINATES]
    figure, panels = plt.subplots(len(names) + 2, 1, figsize=(9, 2 * len(names) + 4), sharex=True, layout="constrained")
    for row, label in zip(rows, labels, strict=True):
        length = int(episodes.lengths[row])
        for index, panel in enumerate(panels[: len(names)]):
            panel.plot(episodes.states[row, : length + 1, index], label=label)
        action = episodes.actions[row, :length]
        panels[-2].plot(action if action.ndim == 1 else action[:, 0], drawstyle="steps-post", linewidth=0.8)
        panels[-1].plot(episodes.rewards[row, :length].cumsum(0))
    titles = (*names, environment.action_names[0], "return so far")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    panels[0].legend(ncols=len(labels), fontsize="small")
    return save_figure(figure, path)


def check_video(path: Path) -> None:
    """Refuse a video that could not be written, before anything is played.

    Raises
    ------
    ConfigurationError
    """
    if path.suffix not in VIDEO_FORMATS:
        raise ConfigurationError(f"{path}: videos are written as {' or '.join(VIDEO_FORMATS)}")
    if path.suffix == ".mp4" and importlib.util.find_spec("av") is None:
        raise ConfigurationError(f"{path}: .mp4 needs PyAV (pip install av); .gif needs nothing")


def film_episode(environment: Environment, covariates: Tensor, episodes: Episodes, row: int, path: Path) -> Path:
    """Play an episode's actions once more from its first state in gymnasium's renderer, and write a video.

    Parameters
    ----------
    environment : Environment
    covariates : Tensor, shape (C,)
        Of the episode's agent.
    episodes : Episodes
    row : int
        The episode.
    path : Path
        .gif or .mp4.

    Raises
    ------
    ConfigurationError
        If gymnasium cannot render the environment here.
    """
    named: dict[str, Any] = environment.named(covariates.tolist())
    try:
        env: Any = gymnasium.make(environment.gym_id, render_mode="rgb_array", **named)
        env.reset(seed=0)
        environment.put(env.unwrapped, episodes.states[row, 0].numpy())
        frames = [env.render()]
        for action in episodes.actions[row, : int(episodes.lengths[row])]:
            env.step(action.numpy() if action.ndim else int(action))
            frames.append(env.render())
        rate = env.metadata["render_fps"]
        env.close()
    except (gymnasium.error.DependencyNotInstalled, ImportError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"{path}: gymnasium cannot render {environment.name} here ({reason})") from error
    # The suffix tells imageio the format, and a temporary file has another.
    options = {"duration": 1000 / rate, "loop": 0} if path.suffix == ".gif" else {"fps": rate, "codec": "h264"}
    plugin = "pillow" if path.suffix == ".gif" else "pyav"
    with atomic_write(path) as temporary:
        iio.imwrite(temporary, np.stack(frames), extension=path.suffix, plugin=plugin, **options)
    return path
