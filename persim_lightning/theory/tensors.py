"""The dynamics tensor T[n, s, a, d] = Δs_d of agent n in state s under action a, of the truth and of a simulator."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.models.population import FittedPopulation

# Transitions of the truth that are computed together.
_ROWS = 1 << 16


def true_tensor(environment: Environment, covariates: Tensor, states: Tensor, actions: Tensor) -> np.ndarray:
    """One true step of every agent from every state under every action.

    Parameters
    ----------
    environment : Environment
    covariates : Tensor, shape (N, C)
    states : Tensor, shape (S, D)
    actions : Tensor, shape (A,) int64 or (A, action_dim)

    Returns
    -------
    ndarray, shape (N, S, A, D), float64
        Raw units.
    """
    pairs = list(itertools.product(range(len(covariates)), range(len(states))))
    index = torch.tensor(pairs)
    parts = []
    for part in index.split(max(1, _ROWS // len(actions))):
        start = states[part[:, 1]].double()
        plans = actions[:, None].expand(len(part), -1, *[-1] * actions.ndim)
        trajectories = environment.rollout(covariates[part[:, 0]].double(), start, plans)[0]
        parts.append(trajectories[:, :, 1] - trajectories[:, :, 0])
    deltas = torch.cat(parts).view(len(covariates), len(states), len(actions), -1)
    return deltas.double().numpy()


def learned_tensor(
    personalized: FittedPopulation, agents: Tensor, states: Tensor, actions: Tensor, walls: bool = True
) -> np.ndarray:
    """What an ensemble predicts: the mean over members.

    Parameters
    ----------
    personalized : FittedPopulation
    agents : Tensor, shape (N,), int64
        Agent indices.
    states, actions : Tensor
        As for :func:`true_tensor`.
    walls : bool
        Stop predictions at walls. Without, the tensor has exactly the ranks of the network.

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
    """A regular grid of `points` values a coordinate, (D,), (D,) -> (points^D, D).

    Raises
    ------
    ConfigurationError
        If it would have more than 10,000 points.
    """
    if points ** len(low) > 10_000:
        raise ConfigurationError(
            f"a grid of {points} values for each of {len(low)} state coordinates is too large: sample states instead"
        )
    axes = [torch.linspace(float(a), float(b), points, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    return torch.cartesian_prod(*axes).view(-1, len(low))


def coordinate_scales(tensor: np.ndarray) -> np.ndarray:
    """Root mean square of every coordinate of (N, S, A, D), shape (D,); one for coordinates that are always zero."""
    scale = np.sqrt(np.square(tensor).mean((0, 1, 2)))
    return np.where(scale > 0, scale, 1.0)


def merged(tensor: np.ndarray) -> np.ndarray:
    """PerSim's three-way tensor: (N, S, A, D) -> (N, S·D, A), coordinates within the state mode."""
    agents, states, actions, dim = tensor.shape
    return np.moveaxis(tensor, 3, 2).reshape(agents, states * dim, actions)
