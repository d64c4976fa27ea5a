"""Can the true tensor be recovered from the visited cells? Decompose these only and measure the error on all others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.config import Ranks
from persim_lightning.models.factorization import to_dense
from persim_lightning.theory.cells import Cells
from persim_lightning.theory.masked import complete
from persim_lightning.theory.observed_cells import average_rows
from persim_lightning.theory.results import ObservedCurve


def visited_cells(trajectories: Trajectories, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """Mark the cells that recorded transitions visit: the nearest state and action of each.

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
    position = torch.full((trajectories.num_agents,), -1)
    position[agents] = torch.arange(len(agents))
    agent = position[trajectories.row_agent()[steps]]
    steps, agent = steps[agent >= 0], agent[agent >= 0]
    std = trajectories.state.std(0).clamp(min=1e-12)
    state = Cells(torch.zeros_like(std), std, states.float() / std).assign(trajectories.state[steps])
    action = trajectories.action[steps]
    if trajectories.schema.num_actions is None:
        ones = action.new_ones(action.shape[1])
        action = Cells(torch.zeros_like(ones), ones, actions.float()).assign(action)
    visited = torch.zeros(len(agents), len(states), len(actions), dtype=torch.bool)
    visited[agent, state, action] = True
    return visited


def observed_curve(tensor: np.ndarray, visited: Tensor, ranks: tuple[int, ...]) -> ObservedCurve:
    """Decompose the visited cells at several ranks and measure errors on visited and unvisited cells.

    Parameters
    ----------
    tensor : ndarray, shape (N, S, A, D)
        True tensor, scaled.
    visited : Tensor, shape (N, S, A), bool
    ranks : tuple of int
    """
    if visited.all():
        return ObservedCurve(1.0, [], [], [])
    truth = torch.from_numpy(tensor)
    agent, state, action = visited.nonzero().unbind(1)
    cells = average_rows(agent, state, action, truth[agent, state, action], tensor.shape[:3])
    errors: dict[str, list[float]] = {"seen": [], "unseen": []}
    for rank in ranks:
        dense = torch.from_numpy(to_dense(complete(cells, Ranks(rank, rank, rank), tolerance=1e-4).tensor))
        estimate = dense.view(*tensor.shape[:2], tensor.shape[3], tensor.shape[2]).movedim(2, 3)
        for name, mask in (("seen", visited), ("unseen", ~visited)):
            residual, size = (values[mask].square().sum() for values in (estimate - truth, truth))
            errors[name].append(float((residual / size.clamp(min=1e-300)).sqrt()))
    return ObservedCurve(float(visited.double().mean()), list(ranks), **errors)
