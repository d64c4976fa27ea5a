"""What the observation pattern allows: the true tensor decomposed from those cells alone that the data visit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.config import Ranks
from persim_lightning.models.factorization import to_dense
from persim_lightning.theory.cells import Cells
from persim_lightning.theory.masked import complete, observe


@dataclass(frozen=True)
class ObservedCurve:
    """Errors of masked CP decompositions of the true tensor against rank.

    Without cells that are not visited there is nothing to tell: no ranks.

    Attributes
    ----------
    share : float
        Of the cells (agent, state, action) that the data visit.
    ranks : list of int
    seen, unseen : list of float
        Relative errors on visited cells, and on the others.
    """

    share: float
    ranks: list[int]
    seen: list[float]
    unseen: list[float]


def visited_cells(trajectories: Trajectories, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """Cells that recorded transitions fall into: each counts for the nearest state and action.

    Parameters
    ----------
    trajectories : Trajectories
    agents : Tensor, shape (N,), int64
    states, actions : Tensor, shapes (S, D), (A,) or (A, action_dim)

    Returns
    -------
    Tensor, shape (N, S, A), bool
    """
    steps, _ = trajectories.split_rows(0.0)
    place = torch.full((trajectories.num_agents,), -1)
    place[agents] = torch.arange(len(agents))
    owner = place[trajectories.row_agent()[steps]]
    steps, owner = steps[owner >= 0], owner[owner >= 0]
    std = trajectories.state.std(0).clamp(min=1e-12)
    state = Cells(torch.zeros_like(std), std, states.float() / std).assign(trajectories.state[steps])
    taken = trajectories.action[steps]
    if trajectories.schema.num_actions is None:
        width = taken.new_ones(taken.shape[1])
        taken = Cells(torch.zeros_like(width), width, actions.float()).assign(taken)
    visited = torch.zeros(len(agents), len(states), len(actions), dtype=torch.bool)
    visited[owner, state, taken] = True
    return visited


def observed_curve(tensor: np.ndarray, visited: Tensor, ranks: tuple[int, ...]) -> ObservedCurve:
    """Decompose visited cells at several ranks, and compare with all cells.

    Parameters
    ----------
    tensor : ndarray, shape (N, S, A, D)
        Scaled.
    visited : Tensor, shape (N, S, A), bool
    ranks : tuple of int
    """
    if visited.all():
        return ObservedCurve(1.0, [], [], [])
    truth = torch.from_numpy(tensor)
    agent, state, action = visited.nonzero().unbind(1)
    cells = observe(agent, state, action, truth[agent, state, action], tensor.shape[:3])
    errors: list[tuple[float, float]] = []
    for rank in ranks:
        dense = torch.from_numpy(to_dense(complete(cells, Ranks(rank, rank, rank), tolerance=1e-4).tensor))
        found = dense.view(*tensor.shape[:2], tensor.shape[3], tensor.shape[2]).movedim(2, 3)
        parts = []
        for mask in (visited, ~visited):
            left, size = (values[mask].square().sum() for values in (found - truth, truth))
            parts.append(float((left / size.clamp(min=1e-300)).sqrt()))
        errors.append((parts[0], parts[1]))
    return ObservedCurve(
        float(visited.double().mean()), list(ranks), [seen for seen, _ in errors], [unseen for _, unseen in errors]
    )
