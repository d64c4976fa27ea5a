"""Learned rewards and terminations of a table: one small network each for the whole population."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from persim_lightning.errors import SimulatorFileError
from persim_lightning.support.files import atomic_write
from persim_lightning.types import Schema

_WIDTH = 64


class Outcomes(NamedTuple):
    """Rewards and terminations of T transitions.

    Attributes
    ----------
    state, next_state : Tensor, shape (T, D)
    action : Tensor, shape (T,) int64 or (T, A)
    reward : Tensor, shape (T,), or None
    terminated : Tensor, shape (T,), bool
        Whether the trajectory terminated in `next_state`.
    """

    state: Tensor
    action: Tensor
    next_state: Tensor
    reward: Tensor | None
    terminated: Tensor


class _Net(nn.Module):
    """An affine map plus a small MLP of standardized inputs, (..., in) -> (...)."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.skip = nn.Linear(features, 1)
        self.mlp = nn.Sequential(
            nn.Linear(features, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, 1)
        )

    def standardize(self, inputs: Tensor) -> None:
        """Set means and standard deviations from (T, in); constant inputs get a scale of one."""
        std = inputs.std(0, correction=0)
        self.mean.copy_(inputs.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, inputs: Tensor) -> Tensor:
        scaled = ((inputs - self.mean) / self.std).to(self.skip.weight.dtype)
        output: Tensor = (self.skip(scaled) + self.mlp(scaled))[..., 0]
        return output


class OutcomeModel(nn.Module):
    """Predicts rewards from (s, a, s'), and terminations from s'.

    Parameters
    ----------
    state_dim, action_dim : int
    num_actions : int or None
    rewarded, ending : bool
        Whether the table has rewards, and trajectories that terminate.
    """

    reward_mean: Tensor
    reward_std: Tensor

    def __init__(self, state_dim: int, action_dim: int, num_actions: int | None, rewarded: bool, ending: bool) -> None:
        super().__init__()
        self.num_actions = num_actions
        actions = action_dim if num_actions is None else num_actions
        self.reward_net = _Net(2 * state_dim + actions) if rewarded else None
        self.end_net = _Net(state_dim) if ending else None
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_std", torch.ones(()))

    @property
    def rewarded(self) -> bool:
        """Return whether rewards are known."""
        return self.reward_net is not None

    def inputs(self, states: Tensor, actions: Tensor, next_state: Tensor) -> Tensor:
        """Build the inputs of the reward network: states, actions (one-hot if discrete) and changes of state."""
        encoded = actions if self.num_actions is None else F.one_hot(actions, self.num_actions).to(states.dtype)
        return torch.cat((states, encoded, next_state - states), dim=-1)

    def set_statistics(self, outcomes: Outcomes) -> None:
        """Set normalization constants from a training set."""
        if self.reward_net is not None and outcomes.reward is not None:
            self.reward_net.standardize(self.inputs(outcomes.state, outcomes.action, outcomes.next_state))
            std = outcomes.reward.std(correction=0)
            self.reward_mean.copy_(outcomes.reward.mean())
            self.reward_std.copy_(torch.where(std > 0, std, 1.0))
        if self.end_net is not None:
            self.end_net.standardize(outcomes.next_state)

    def loss(self, outcomes: Outcomes) -> Tensor:
        """Compute the squared error of standardized rewards plus the log loss of terminations."""
        total = outcomes.state.new_zeros(())
        if self.reward_net is not None and outcomes.reward is not None:
            predicted = self.reward_net(self.inputs(outcomes.state, outcomes.action, outcomes.next_state))
            total = total + (predicted - (outcomes.reward - self.reward_mean) / self.reward_std).square().mean()
        if self.end_net is not None:
            logit = self.end_net(outcomes.next_state)
            total = total + F.binary_cross_entropy_with_logits(logit, outcomes.terminated.to(logit.dtype))
        return total

    def reward(self, states: Tensor, actions: Tensor, next_state: Tensor) -> Tensor:
        """Predict rewards in raw units: states (..., D), actions (...)|(..., A), next states (..., D) -> (...)."""
        assert self.reward_net is not None
        rewards: Tensor = self.reward_net(self.inputs(states, actions, next_state)) * self.reward_std + self.reward_mean
        return rewards

    def terminated(self, states: Tensor) -> Tensor:
        """Predict whether a trajectory terminates in a state: (..., D) -> (...) bool."""
        if self.end_net is None:
            return torch.zeros(states.shape[:-1], dtype=torch.bool, device=states.device)
        ends: Tensor = self.end_net(states) > 0
        return ends


def save_outcomes(model: OutcomeModel, path: Path) -> Path:
    """Write a model's weights (.safetensors) atomically."""
    with atomic_write(path) as temporary:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    return path


def load_outcomes(path: Path, schema: Schema) -> OutcomeModel:
    """Read a model that :func:`save_outcomes` wrote for a table with this schema.

    Raises
    ------
    SimulatorFileError
        If the file is damaged, or belongs to another table.
    """
    try:
        state = load_file(path)
        kinds = [any(name.startswith(part) for name in state) for part in ("reward_net", "end_net")]
        model = OutcomeModel(schema.state_dim, schema.action_dim, schema.num_actions, *kinds)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise SimulatorFileError(f"{path}: not readable ({str(error).splitlines()[0]})") from error
    return model.eval().requires_grad_(False)
