"""MountainCar with gravity as a covariate (PerSim, section 5; https://arxiv.org/abs/2102.06961)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv as GymMountainCar
from torch import Tensor

from persim_lightning.envs.environment import Covariate, Environment
from persim_lightning.envs.functional import FunctionalBatch, rollout, set_state

FORCE = 1e-3
MIN_POSITION, MAX_POSITION = -1.2, 0.6
MAX_SPEED = 0.07
GOAL_POSITION = 0.5


def dynamics(states: Tensor, actions: Tensor, covariates: Tensor) -> Tensor:
    """Compute the next states of a batch of cars.

    Parameters
    ----------
    states : Tensor, shape (..., 2)
        Position and velocity (per step).
    actions : Tensor, shape (...)
        0 push left, 1 coast, 2 push right.
    covariates : Tensor, shape (..., 1)
        Gravity.

    Returns
    -------
    Tensor, shape (..., 2)
    """
    position, velocity = states.unbind(-1)
    velocity = velocity + (actions - 1).to(states.dtype) * FORCE - covariates[..., 0] * torch.cos(3 * position)
    velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED)
    position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION)
    at_wall = (position <= MIN_POSITION) & (velocity < 0)
    return torch.stack((position, velocity.masked_fill(at_wall, 0.0)), dim=-1)


def terminated(states: Tensor) -> Tensor:
    """Check whether each car is at the goal with non-negative velocity: (..., 2) -> (...) bool."""
    return (states[..., 0] >= GOAL_POSITION) & (states[..., 1] >= 0)


def reward(states: Tensor, actions: Tensor, next_states: Tensor) -> Tensor:
    """Return -1 for every step, 0 for the step that reaches the goal; shapes (..., 2), (...), (..., 2) -> (...)."""
    return torch.where(terminated(next_states), 0.0, -1.0).to(next_states.dtype)


class MountainCarEnv(GymMountainCar):
    """Gymnasium's MountainCar with adjustable `gravity`, and reward 0 on reaching the goal."""

    def __init__(self, gravity: float = 0.0025, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.gravity = gravity

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, 0.0 if terminated else -1.0, terminated, truncated, info


def make_batch(covariates: Tensor, seed: int) -> FunctionalBatch:
    """Create one car per row of `covariates` (B, 1), at rest, with initial positions uniform in [-0.6, -0.4]."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand(len(covariates), generator=generator, dtype=torch.float64) * 0.2 - 0.6
    return FunctionalBatch(dynamics, covariates, torch.stack((position, torch.zeros_like(position)), dim=-1))


MOUNTAIN_CAR = Environment(
    name="mountaincar",
    gym_id="persim/MountainCar-v0",
    state_names=("position", "velocity"),
    action_names=("action",),
    num_actions=3,
    covariates=(Covariate("gravity", 1e-4, 3.5e-3, 2.5e-3),),
    test_agents=((1e-4,), (5e-4,), (1e-3,), (2.5e-3,), (3.5e-3,)),
    policy_training_agents=((3e-4,), (7.5e-4,), (1.75e-3,), (2.5e-3,), (3e-3,)),
    max_steps=500,
    make_batch=make_batch,
    reward=reward,
    terminated=terminated,
    rollout=partial(rollout, dynamics),
    set_state=set_state,
)
