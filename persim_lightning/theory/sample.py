"""Sample the agents, states and actions of a dynamics tensor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories

# Size of the tensor. It is limited because computing a HalfCheetah transition takes 40 µs.
AGENTS, STATES, ACTIONS = 40, 120, 20


class Sample(NamedTuple):
    """Agents, states and actions of a dynamics tensor.

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
        """Return the numbers of agents, states and actions."""
        return {name: len(value) for name, value in self._asdict().items()}


def sample_cells(trajectories: Trajectories, seed: int = 0) -> Sample:
    """Draw agents, states and actions from recorded trajectories; discrete actions are all included.

    Parameters
    ----------
    trajectories : Trajectories
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(population: int, size: int) -> Tensor:
        return torch.randperm(population, generator=generator)[:size].sort().values

    steps, _ = trajectories.split_rows(0.0)
    states = trajectories.state[draw(len(trajectories.state), STATES)]
    count = trajectories.schema.num_actions
    actions = torch.arange(count) if count is not None else trajectories.action[steps[draw(len(steps), ACTIONS)]]
    return Sample(draw(trajectories.num_agents, AGENTS), states, actions)
