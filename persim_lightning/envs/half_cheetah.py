"""HalfCheetah with scaled body masses and joint damping (PerSim, section 5; https://arxiv.org/abs/2102.06961).

The state has 18 entries: the forward velocity over the last control step (m/s), then `qpos[1:]` (m, rad) and `qvel`
(m/s, rad/s). The reward of a step is the *next* forward velocity minus a control cost, so that it is a function of
(action, next state) and can be scored on a learned simulator.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import mujoco
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv as GymHalfCheetah
from mujoco import rollout as mujoco_rollout
from torch import Tensor

from persim_lightning.envs.environment import Covariate, Environment

CONTROL_COST = 0.1
FRAME_SKIP = 5
RESET_NOISE = 0.1
# Time, positions, velocities, …, and the solver's warm start: all that the next step depends on.
STATE = mujoco.mjtState.mjSTATE_INTEGRATION
JOINTS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")
STATE_NAMES = (
    "x_velocity",
    "root_z",
    "root_angle",
    *(f"{joint}_angle" for joint in JOINTS),
    "root_x_velocity",
    "root_z_velocity",
    "root_angular_velocity",
    *(f"{joint}_angular_velocity" for joint in JOINTS),
)
ACTION_NAMES = tuple(f"{joint}_torque" for joint in JOINTS)


@functools.cache
def _standard() -> GymHalfCheetah:
    """Gymnasium's cheetah, read from its file once; its model must not be changed."""
    return GymHalfCheetah()


@functools.lru_cache(maxsize=256)
def _cached_model(mass: float, damping: float) -> mujoco.MjModel:
    """A scaled model for planning, which asks for the same one at every step; not to be changed."""
    return scaled_model(mass, damping)


def scaled_model(mass: float, damping: float) -> mujoco.MjModel:
    """A copy of the standard cheetah's model, scaled."""
    model = copy.copy(_standard().model)
    scale_model(model, mass, damping)
    return model


def scale_model(model: mujoco.MjModel, mass: float, damping: float) -> None:
    """Scale `body_mass` and `dof_damping` in place.

    `mj_setConst` is deliberately not called: the paper's environments do not call it, and it changes the dynamics.
    """
    model.body_mass[:] *= mass
    model.dof_damping[:] *= damping


def reward(states: Tensor, actions: Tensor, next_states: Tensor) -> Tensor:
    """Reward of a batch of steps: next forward velocity minus 0.1‖a‖².

    Parameters
    ----------
    states : Tensor, shape (..., 18)
        Ignored; kept so that every environment's reward has one signature.
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
    """HalfCheetah never terminates: all False, shape (...) for states (..., 18)."""
    return torch.zeros(states.shape[:-1], dtype=torch.bool, device=states.device)


class HalfCheetahEnv(GymHalfCheetah):
    """Gymnasium's HalfCheetah with covariates and the paper's 18-d state.

    Parameters
    ----------
    mass, damping : float
        Factors on every body's mass and every joint's damping; 1 is the default cheetah.
    render_mode : str, optional
        As in gymnasium.
    """

    def __init__(self, mass: float = 1.0, damping: float = 1.0, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        scale_model(self.model, mass, damping)
        self._forward_velocity = 0.0
        self.observation_space = spaces.Box(-np.inf, np.inf, shape=(len(STATE_NAMES),), dtype=np.float64)

    def _get_obs(self) -> np.ndarray:
        return np.concatenate(([self._forward_velocity], self.data.qpos[1:], self.data.qvel))

    def reset_model(self) -> np.ndarray:
        self._forward_velocity = 0.0
        return super().reset_model()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:  # type: ignore[override]
        x_before = self.data.qpos[0]
        self.do_simulation(action, self.frame_skip)
        self._forward_velocity = float(self.data.qpos[0] - x_before) / self.dt
        cost = CONTROL_COST * float(np.square(action).sum())
        info = {"x_position": float(self.data.qpos[0]), "x_velocity": self._forward_velocity}
        if self.render_mode == "human":
            self.render()
        return self._get_obs(), self._forward_velocity - cost, False, False, info


class HalfCheetahBatch:
    """One cheetah per row, each with its own covariates, stepped together.

    Stepping follows :class:`HalfCheetahEnv`; initial states are drawn from `seed`.

    Parameters
    ----------
    covariates : Tensor, shape (B, 2)
        Mass and damping factors.
    seed : int
        Seed of the initial states.
    """

    def __init__(self, covariates: Tensor, seed: int) -> None:
        base = _standard()
        # One workspace serves all cheetahs: MuJoCo's takes megabytes, a cheetah's state a few hundred bytes.
        self._data, self._dt = base.data, base.dt
        self._models = []
        self._physics = np.empty((len(covariates), mujoco.mj_stateSize(base.model, STATE)))
        rng = np.random.default_rng(seed)
        for row, (mass, damping) in enumerate(covariates.tolist()):
            model = scaled_model(mass, damping)
            self._models.append(model)
            mujoco.mj_resetData(model, self._data)
            self._data.qpos[:] = base.init_qpos + rng.uniform(-RESET_NOISE, RESET_NOISE, model.nq)
            self._data.qvel[:] = base.init_qvel + RESET_NOISE * rng.standard_normal(model.nv)
            mujoco.mj_forward(model, self._data)
            mujoco.mj_getState(model, self._data, self._physics[row], STATE)
        self.states = self._observe(np.zeros(len(covariates)))

    @property
    def qpos(self) -> np.ndarray:
        """Positions (B, 9), the one along the track first; a view that may be written to."""
        return self._physics[:, 1:10]

    @property
    def qvel(self) -> np.ndarray:
        """Velocities (B, 9); a view that may be written to."""
        return self._physics[:, 10:19]

    def _observe(self, forward_velocity: np.ndarray) -> Tensor:
        return torch.from_numpy(np.concatenate((forward_velocity[:, None], self.qpos[:, 1:], self.qvel), axis=1))

    def step(self, actions: Tensor) -> Tensor:
        """Apply torques (B, 6) for one control step and return the next states (B, 18), float64."""
        before = self.qpos[:, 0].copy()
        for model, physics, action in zip(self._models, self._physics, actions.numpy(), strict=True):
            mujoco.mj_setState(model, self._data, physics, STATE)
            self._data.ctrl[:] = action
            mujoco.mj_step(model, self._data, nstep=FRAME_SKIP)
            mujoco.mj_getState(model, self._data, physics, STATE)
        self.states = self._observe((self.qpos[:, 0] - before) / self._dt)
        return self.states


def rollout(covariates: Tensor, states: Tensor, plans: Tensor) -> Tensor:
    """True trajectories of B cheetahs under P plans each, on as many threads as torch may use.

    A state leaves out two things of MuJoCo's own: the position along the track, on which nothing depends, and the
    solver's warm start, which moves results by less than the solver's tolerance.

    Parameters
    ----------
    covariates : Tensor, shape (B, 2)
    states : Tensor, shape (B, 18)
    plans : Tensor, shape (B, P, H, 6)

    Returns
    -------
    Tensor, shape (1, B, P, H+1, 18), float64
    """
    batch, count, horizon = plans.shape[:3]
    base = _standard()
    models = [_cached_model(mass, damping) for mass, damping in covariates.tolist()]
    # Full physics: time, qpos with x = 0, qvel.
    initial = np.concatenate((np.zeros((batch, 2)), states.double().numpy()[:, 1:]), axis=1)
    control = plans.double().flatten(0, 1).repeat_interleave(FRAME_SKIP, dim=1).numpy()
    every, _ = mujoco_rollout.rollout(
        [model for model in models for _ in range(count)],
        [mujoco.MjData(base.model) for _ in range(torch.get_num_threads())],
        initial.repeat(count, axis=0),
        control,
    )
    physics = torch.from_numpy(every[:, FRAME_SKIP - 1 :: FRAME_SKIP]).view(batch, count, horizon, -1)
    qpos, qvel = physics[..., 1:10], physics[..., 10:19]
    x = torch.cat((torch.zeros_like(qpos[..., :1, 0]), qpos[..., 0]), dim=-1)
    after = torch.cat(((x.diff() / base.dt)[..., None], qpos[..., 1:], qvel), dim=-1)
    before = states.double()[:, None, None].expand(-1, count, 1, -1)
    return torch.cat((before, after), dim=2)[None]


def put(env: HalfCheetahEnv, state: np.ndarray) -> None:
    """Put a cheetah into a state (18,), wherever along the track it is."""
    env.set_state(np.concatenate((env.data.qpos[:1], state[1:9])), state[9:])
    env._forward_velocity = float(state[0])


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
    make_batch=HalfCheetahBatch,
    reward=reward,
    terminated=terminated,
    rollout=rollout,
    put=put,
)
