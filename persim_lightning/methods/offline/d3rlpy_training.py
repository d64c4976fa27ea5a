"""Trains algorithms of d3rlpy on recorded trajectories.

Batches are drawn here, since d3rlpy's buffer builds every transition in Python, which is slower than the gradients, and
drops the last step of a truncated trajectory unless an action is invented for its last state.
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
from persim_lightning.errors import MissingPackageError, TableError
from persim_lightning.policies.networks import Net, copy_layers

# Steps above which training shows a progress bar.
_LONG = 1000


@dataclass(frozen=True)
class TransitionTable:
    """T transitions in the form that d3rlpy needs: float32, one row each.

    Attributes
    ----------
    mean, std : Tensor, shape (D,)
        Mean and standard deviation of recorded states; the latter is one for constant columns.
    state, next_state : Tensor, shape (T, D)
        Standardized.
    action : Tensor, shape (T, 1) or (T, A)
    reward : Tensor, shape (T, 1)
        Scaled.
    terminal : Tensor, shape (T, 1)
        1 where the trajectory terminated in `next_state`; values bootstrap at the end of truncated trajectories.
    """

    mean: Tensor
    std: Tensor
    state: Tensor
    next_state: Tensor
    action: Tensor
    reward: Tensor
    terminal: Tensor

    @classmethod
    def of(cls, trajectories: Trajectories, environment: Environment, reward_size: float) -> TransitionTable:
        """Collect the transitions of all trajectories.

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
            raise TableError("no trajectory has two rows: a policy cannot be learned")
        action = trajectories.action[rows]
        if not discrete and action.abs().max() > 1 + 1e-5:
            raise TableError(f"actions must lie in [-1, 1], but one is {float(action.abs().max()):g} in size")
        states = trajectories.state.double()
        mean, std = states.mean(0), states.std(0, correction=0)
        # Rounding gives a constant column a tiny deviation.
        std = torch.where(states.amax(0) > states.amin(0), std, 1.0)
        scaled = ((states - mean) / std).float()
        reward = trajectories.reward[rows].double()
        size = reward.square().mean().sqrt()
        return cls(
            mean=mean.float(),
            std=std.float(),
            state=scaled[rows],
            next_state=scaled[rows + 1],
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
        Configuration of a d3rlpy algorithm.
    table : TransitionTable
    action_size : int
        Number of discrete actions, or of coordinates of continuous ones.
    steps : int
    seed : int
        Seed of the networks; torch's global generator is restored.
    label : str
        Label of the progress bar.

    Returns
    -------
    QLearningAlgoBase
        The trained algorithm of d3rlpy.
    """
    generator = torch.Generator().manual_seed(seed)
    ones = torch.ones(config.batch_size, 1).numpy()
    # d3rlpy draws weights and latents from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        algorithm = config.create(device="cpu:0")
        algorithm.create_impl(table.state.shape[1:], action_size)
        for _ in track(range(steps), f"{label}: learning", transient=True, disable=steps < _LONG):
            # Draw with replacement even from small tables, since values diverge on batches of the whole table.
            index = torch.randint(len(table.state), (config.batch_size,), generator=generator)
            actions = table.action[index].numpy()
            algorithm.update(
                d3rlpy.dataset.TransitionMiniBatch(
                    observations=table.state[index].numpy(),
                    actions=actions,
                    rewards=table.reward[index].numpy(),
                    next_observations=table.next_state[index].numpy(),
                    # Not used by either algorithm.
                    next_actions=actions,
                    terminals=table.terminal[index].numpy(),
                    intervals=ones,
                    transitions=[],
                )
            )
    return algorithm


def copy_net(module: nn.Module, depth: int) -> Net:
    """Copy the first `depth` linear layers of a d3rlpy network: its encoder and its output."""
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
        # The import prints a warning about gym; errors are still raised.
        with contextlib.redirect_stderr(io.StringIO()):
            return import_module("d3rlpy")
    except ImportError as error:
        raise MissingPackageError("learning by BCQ or CQL", "d3rlpy", "baselines") from error
    finally:
        # On machines with a GPU, the import lowers the global precision of matrix products.
        torch.set_float32_matmul_precision(precision)
