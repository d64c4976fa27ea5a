"""Trains algorithms of d3rlpy on recorded trajectories.

Batches are drawn here: d3rlpy's own buffer builds every transition in Python, which takes longer than the gradients,
and keeps the last step of a trajectory that was cut only where an action is made up for its last state.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError, TableError
from persim_lightning.policies.networks import Net, copy_layers

# Shorter training shows no progress bar.
_LONG = 1000


@dataclass(frozen=True)
class TransitionTable:
    """T transitions as d3rlpy wants them: float32, one row each.

    Attributes
    ----------
    mean, std : Tensor, shape (D,)
        Of recorded states; columns of one value have a scale of one.
    state, following : Tensor, shape (T, D)
        Standardized.
    action : Tensor, shape (T, 1) or (T, A)
    reward : Tensor, shape (T, 1)
        Scaled.
    terminal : Tensor, shape (T, 1)
        1 where the trajectory really ended in `following`. Trajectories that were cut go on in the values.
    """

    mean: Tensor
    std: Tensor
    state: Tensor
    following: Tensor
    action: Tensor
    reward: Tensor
    terminal: Tensor

    @classmethod
    def of(cls, trajectories: Trajectories, environment: Environment, reward_size: float) -> TransitionTable:
        """Transitions of all trajectories.

        Parameters
        ----------
        trajectories : Trajectories
        environment : Environment
        reward_size : float
            Root mean square that rewards are scaled to.

        Raises
        ------
        TableError
            If there are no rewards or transitions, or actions out of range.
        """
        schema, discrete = trajectories.schema, environment.num_actions is not None
        if trajectories.reward is None:
            raise TableError(f"no column '{schema.reward}': offline reinforcement learning needs rewards")
        rows, _ = trajectories.split_rows(0.0)
        if not len(rows):
            raise TableError("no trajectory has two rows: there is nothing to learn from")
        action = trajectories.action[rows]
        if not discrete and action.abs().max() > 1 + 1e-5:
            raise TableError(f"actions must lie in [-1, 1], but one is {float(action.abs().max()):g} in size")
        states = trajectories.state.double()
        mean, std = states.mean(0), states.std(0, correction=0)
        # Rounding leaves a column of one value a deviation that is nearly zero.
        std = torch.where(states.amax(0) > states.amin(0), std, 1.0)
        scaled = ((states - mean) / std).float()
        reward = trajectories.reward[rows].double()
        size = reward.square().mean().sqrt()
        return cls(
            mean=mean.float(),
            std=std.float(),
            state=scaled[rows],
            following=scaled[rows + 1],
            action=action[:, None].float() if discrete else action.clamp(-1, 1),
            reward=(reward * reward_size / torch.where(size > 0, size, 1.0)).float()[:, None],
            terminal=trajectories.ends(rows).float()[:, None],
        )


def train(
    d3rlpy: ModuleType, config: Any, table: TransitionTable, action_size: int, steps: int, seed: int, label: str
) -> Any:
    """Train an algorithm of d3rlpy.

    Parameters
    ----------
    d3rlpy : module
    config : LearnableConfig
        Of d3rlpy.
    table : TransitionTable
    action_size : int
        Number of discrete actions, or of coordinates of continuous ones.
    steps : int
    seed : int
        Same seed, same networks; torch's global generator is left as it was.
    label : str
        Names a progress bar.

    Returns
    -------
    QLearningAlgoBase
        Of d3rlpy.
    """
    generator = torch.Generator().manual_seed(seed)
    ones = torch.ones(config.batch_size, 1).numpy()
    # d3rlpy draws weights and latents from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        algorithm = config.create(device="cpu:0")
        algorithm.create_impl(table.state.shape[1:], action_size)
        for _ in track(range(steps), f"{label}: learning", transient=True, disable=steps < _LONG):
            # With replacement, also where a trajectory is shorter than a batch: on the whole table values diverge.
            index = torch.randint(len(table.state), (config.batch_size,), generator=generator)
            actions = table.action[index].numpy()
            algorithm.update(
                d3rlpy.dataset.TransitionMiniBatch(
                    observations=table.state[index].numpy(),
                    actions=actions,
                    rewards=table.reward[index].numpy(),
                    next_observations=table.following[index].numpy(),
                    # Neither algorithm looks at them.
                    next_actions=actions,
                    terminals=table.terminal[index].numpy(),
                    intervals=ones,
                    transitions=[],
                )
            )
    return algorithm


def copy_net(module: nn.Module, depth: int) -> Net:
    """The first `depth` linear layers of a network of d3rlpy: its encoder and the output that follows it."""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return copy_layers(linear[:depth])


def import_d3rlpy() -> ModuleType:
    """Import d3rlpy quietly.

    Raises
    ------
    ConfigurationError
        If it is not installed.
    """
    precision = torch.get_float32_matmul_precision()
    try:
        # The import prints that gym is no longer maintained; errors are raised all the same.
        with contextlib.redirect_stderr(io.StringIO()):
            return import_module("d3rlpy")
    except ImportError as error:
        raise ConfigurationError(
            "learning by BCQ or CQL needs d3rlpy: pip install 'persim-lightning[baselines]'"
        ) from error
    finally:
        # Where there is a GPU, the import also makes everybody's matrix products less precise.
        torch.set_float32_matmul_precision(precision)
