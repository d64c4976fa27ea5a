"""Which agents, states and actions a dynamics tensor is built on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories

# Size of the tensor: every HalfCheetah transition costs 40 µs.
AGENTS, STATES, ACTIONS = 40, 120, 20


class Sample(NamedTuple):
    """The agents, states and actions that a tensor is built on.

    Attributes
    ----------
    agents : Tensor, shape (N,), int64
        Agent indices in the population.
    states : Tensor, shape (S, D)
    actions : Tensor, shape (A,) int64 or (A, action_dim)
    """

    agents: Tensor
    states: Tensor
    actions: Tensor

    def to_dict(self) -> dict[str, int]:
        return {name: len(value) for name, value in self._asdict().items()}


def sample_cells(trajectories: Trajectories, seed: int = 0) -> Sample:
    """Draw agents, states and actions of recorded trajectories; every discrete action is taken.

    Parameters
    ----------
    trajectories : Trajectories
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int, wanted: int) -> Tensor:
        return torch.randperm(count, generator=generator)[:wanted].sort().values

    steps, _ = trajectories.split_rows(0.0)
    chosen = trajectories.state[draw(len(trajectories.state), STATES)]
    count = trajectories.schema.num_actions
    drawn = torch.arange(count) if count is not None else trajectories.action[steps[draw(len(steps), ACTIONS)]]
    return Sample(draw(trajectories.num_agents, AGENTS), chosen, drawn)
