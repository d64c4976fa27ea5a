"""Compute dynamics tensors, T[n, s, a, d] = Δs_d of agent n in state s under action a, true or learned."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.models.population import FittedPopulation

# True transitions that are computed together.
_ROWS = 1 << 16


def true_tensor(environment: Environment, covariates: Tensor, states: Tensor, actions: Tensor) -> np.ndarray:
    """Simulate one step of every agent from every state under every action with the true dynamics.

    Parameters
    ----------
    environment : Environment
    covariates : Tensor, shape (N, C)
    states : Tensor, shape (S, D)
    actions : Tensor, shape (A,) int64 or (A, action_dim)

    Returns
    -------
    ndarray, shape (N, S, A, D), float64
        In the environment's units.
    """
    pairs = list(itertools.product(range(len(covariates)), range(len(states))))
    index = torch.tensor(pairs)
    deltas = []
    for chunk in index.split(max(1, _ROWS // len(actions))):
        start = states[chunk[:, 1]].double()
        plans = actions[:, None].expand(len(chunk), -1, *[-1] * actions.ndim)
        trajectories = environment.rollout(covariates[chunk[:, 0]].double(), start, plans)[0]
        deltas.append(trajectories[:, :, 1] - trajectories[:, :, 0])
    tensor = torch.cat(deltas).view(len(covariates), len(states), len(actions), -1)
    return tensor.double().numpy()


def learned_tensor(
    personalized: FittedPopulation, agents: Tensor, states: Tensor, actions: Tensor, walls: bool = True
) -> np.ndarray:
    """Predict with an ensemble, averaged over members.

    Parameters
    ----------
    personalized : FittedPopulation
    agents : Tensor, shape (N,), int64
        Agent indices.
    states, actions : Tensor
        As for :func:`true_tensor`.
    walls : bool
        Stop predictions at walls. Without walls, the tensor has exactly the ranks of the network.

    Returns
    -------
    ndarray, shape (N, S, A, D), float64
    """
    simulator = personalized.simulator
    state = states.float().to(simulator.delta_rms.device)
    dense = simulator.as_tensor(agents, state, actions.to(state.device)).to_tensor()
    deltas = torch.from_numpy(dense).view(len(agents), *states.shape, len(actions)).movedim(-1, 2)
    if walls and simulator.walls.enabled:
        before = states.double()[:, None].expand_as(deltas)
        after = simulator.walls((before + deltas).float().to(state.device)).double().cpu()
        deltas = torch.where(after == (before + deltas).float(), deltas, after - before)
    return deltas.numpy()


def state_grid(low: Tensor, high: Tensor, points: int) -> Tensor:
    """Create a regular grid with `points` values per coordinate: low (D,), high (D,) -> (points^D, D).

    Raises
    ------
    ConfigurationError
        If the grid would have more than 10,000 points.
    """
    if points ** len(low) > 10_000:
        raise ConfigurationError(
            f"a grid of {points} values for each of {len(low)} state coordinates is too large: sample states instead"
        )
    axes = [torch.linspace(float(a), float(b), points, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    return torch.cartesian_prod(*axes).view(-1, len(low))


def coordinate_scales(tensor: np.ndarray) -> np.ndarray:
    """Compute each coordinate's root mean square, (N, S, A, D) -> (D,); 1 for coordinates that are always zero."""
    scale = np.sqrt(np.square(tensor).mean((0, 1, 2)))
    return np.where(scale > 0, scale, 1.0)


def merged(tensor: np.ndarray) -> np.ndarray:
    """Merge coordinates into the state mode, as PerSim does: (N, S, A, D) -> (N, S·D, A)."""
    agents, states, actions, dim = tensor.shape
    return np.moveaxis(tensor, 3, 2).reshape(agents, states * dim, actions)
