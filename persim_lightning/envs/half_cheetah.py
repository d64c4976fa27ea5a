"""HalfCheetah with scaled body masses and joint damping (PerSim, section 5; https://arxiv.org/abs/2102.06961).

The state has 18 entries: the forward velocity over the last control step (m/s), then `qpos[1:]` (m, rad) and `qvel`
(m/s, rad/s). The reward of a step is the *next* forward velocity minus a control cost. So it is a function of
(action, next state) and can be computed on a learned simulator.

MuJoCo is imported by :mod:`~persim_lightning.envs.half_cheetah_physics`, only when the true dynamics are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from persim_lightning.envs.environment import Covariate, Environment, EnvironmentBatch
from persim_lightning.envs.half_cheetah_names import ACTION_NAMES, CONTROL_COST, STATE_NAMES


def reward(states: Tensor, actions: Tensor, next_states: Tensor) -> Tensor:
    """Compute the rewards of a batch of steps: next forward velocity minus 0.1‖a‖².

    Parameters
    ----------
    states : Tensor, shape (..., 18)
        Not used; every environment's reward has the same signature.
    actions : Tensor, shape (..., 6)
        Torques, clipped to [-1, 1] by the actuators.
    next_states : Tensor, shape (..., 18)
        Entry 0 is the forward velocity (m/s).

    Returns
    -------
    Tensor, shape (...)
    """
    return next_states[..., 0] - CONTROL_COST * actions.square().sum(-1)


def terminated(states: Tensor) -> Tensor:
    """Return False for all states, (..., 18) -> (...): HalfCheetah never terminates."""
    return torch.zeros(states.shape[:-1], dtype=torch.bool, device=states.device)


def make_batch(covariates: Tensor, seed: int) -> EnvironmentBatch:
    """Create one cheetah per row of `covariates` (B, 2), with random initial states."""
    from persim_lightning.envs.half_cheetah_physics import HalfCheetahBatch

    return HalfCheetahBatch(covariates, seed)


def rollout(covariates: Tensor, states: Tensor, plans: Tensor) -> Tensor:
    """Simulate B cheetahs under P plans each; see :func:`~persim_lightning.envs.half_cheetah_physics.rollout`."""
    from persim_lightning.envs import half_cheetah_physics

    return half_cheetah_physics.rollout(covariates, states, plans)


def set_state(env: Any, state: np.ndarray) -> None:
    """Set the state (18,) of an unwrapped cheetah; its position along the track stays."""
    from persim_lightning.envs import half_cheetah_physics

    half_cheetah_physics.set_state(env, state)


HALF_CHEETAH = Environment(
    name="halfcheetah",
    gym_id="persim/HalfCheetah-v0",
    state_names=STATE_NAMES,
    action_names=ACTION_NAMES,
    num_actions=None,
    covariates=(Covariate("mass", 0.2, 1.8, 1.0), Covariate("damping", 0.2, 1.8, 1.0)),
    test_agents=((0.3, 1.7), (1.7, 0.3), (0.3, 0.3), (1.7, 1.7), (1.0, 1.0)),
    policy_training_agents=((1.4, 0.6), (1.4, 1.4), (0.6, 0.6), (0.6, 1.4)),
    max_steps=1000,
    make_batch=make_batch,
    reward=reward,
    terminated=terminated,
    rollout=rollout,
    set_state=set_state,
)
