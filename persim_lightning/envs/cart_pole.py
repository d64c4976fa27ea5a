"""CartPole with push force and pole length as covariates (PerSim, section 5; https://arxiv.org/abs/2102.06961)."""

from __future__ import annotations

import math
from functools import partial

import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv as GymCartPole
from torch import Tensor

from persim_lightning.envs.environment import Covariate, Environment
from persim_lightning.envs.functional import FunctionalBatch, rollout, set_state

GRAVITY = 9.8
CART_MASS, POLE_MASS = 1.0, 0.1
TOTAL_MASS = CART_MASS + POLE_MASS
TIME_STEP = 0.02
MAX_POSITION = 2.4
MAX_ANGLE = 12 * 2 * math.pi / 360


def dynamics(states: Tensor, actions: Tensor, covariates: Tensor) -> Tensor:
    """Compute the next states of a batch of cart-poles (one Euler step of 0.02 s).

    Parameters
    ----------
    states : Tensor, shape (..., 4)
        Position (m), velocity (m/s), pole angle (rad), angular velocity (rad/s).
    actions : Tensor, shape (...)
        0 push left, 1 push right.
    covariates : Tensor, shape (..., 2)
        Force of a push (N) and half the pole's length (m).

    Returns
    -------
    Tensor, shape (..., 4)
    """
    _, velocity, angle, spin = states.unbind(-1)
    magnitude, length = covariates.unbind(-1)
    force = (2 * actions - 1) * magnitude
    sin, cos = torch.sin(angle), torch.cos(angle)
    push = (force + POLE_MASS * length * spin.square() * sin) / TOTAL_MASS
    spin_rate = (GRAVITY * sin - cos * push) / (length * (4.0 / 3.0 - POLE_MASS * cos.square() / TOTAL_MASS))
    acceleration = push - POLE_MASS * length * spin_rate * cos / TOTAL_MASS
    rates = torch.stack((velocity, acceleration, spin, spin_rate), dim=-1)
    return states + TIME_STEP * rates


def terminated(states: Tensor) -> Tensor:
    """Check whether the cart is outside ±2.4 m or the pole outside ±12 degrees: (..., 4) -> (...) bool."""
    return (states[..., 0].abs() > MAX_POSITION) | (states[..., 2].abs() > MAX_ANGLE)


def reward(states: Tensor, actions: Tensor, next_states: Tensor) -> Tensor:
    """Return +1 for every step, including the terminating one; shapes (..., 4), (...), (..., 4) -> (...)."""
    return torch.ones_like(next_states[..., 0])


class CartPoleEnv(GymCartPole):
    """Gymnasium's CartPole with adjustable `force` (N) and half pole `length` (m)."""

    def __init__(self, force: float = 10.0, length: float = 0.5, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.force_mag = force
        self.length = length
        self.polemass_length = self.masspole * length


def make_batch(covariates: Tensor, seed: int) -> FunctionalBatch:
    """Create one cart-pole per row of `covariates` (B, 2), with initial coordinates uniform in ±0.05."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.rand(len(covariates), 4, generator=generator, dtype=torch.float64) * 0.1 - 0.05
    return FunctionalBatch(dynamics, covariates, states)


CART_POLE = Environment(
    name="cartpole",
    gym_id="persim/CartPole-v0",
    state_names=("position", "velocity", "angle", "angular_velocity"),
    action_names=("action",),
    num_actions=2,
    covariates=(Covariate("force", 2.0, 18.0, 10.0), Covariate("length", 0.15, 0.85, 0.5)),
    test_agents=((2.0, 0.5), (10.0, 0.5), (18.0, 0.5), (10.0, 0.85), (10.0, 0.15)),
    policy_training_agents=((6.0, 0.5), (14.0, 0.5), (10.0, 0.5), (10.0, 0.675), (10.0, 0.325)),
    max_steps=200,
    make_batch=make_batch,
    reward=reward,
    terminated=terminated,
    rollout=partial(rollout, dynamics),
    set_state=set_state,
)
