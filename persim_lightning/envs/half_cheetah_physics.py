"""The true dynamics of HalfCheetah, simulated by MuJoCo."""

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

from persim_lightning.envs.half_cheetah_names import CONTROL_COST, STATE_NAMES

FRAME_SKIP = 5
RESET_NOISE = 0.1
# Everything that the next step depends on: time, positions, velocities, …, and the solver's warm start.
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@functools.cache
def _standard() -> GymHalfCheetah:
    """Load gymnasium's cheetah once. Its model is shared: do not change it."""
    return GymHalfCheetah()


@functools.lru_cache(maxsize=256)
def _cached_model(mass: float, damping: float) -> mujoco.MjModel:
    """Return a shared scaled model, for planning, which needs the same one at every step. Do not change it."""
    return scaled_model(mass, damping)


def scaled_model(mass: float, damping: float) -> mujoco.MjModel:
    """Copy the standard cheetah's model and scale the copy."""
    model = copy.copy(_standard().model)
    scale_model(model, mass, damping)
    return model


def scale_model(model: mujoco.MjModel, mass: float, damping: float) -> None:
    """Scale `body_mass` and `dof_damping` in place.

    `mj_setConst` is not called: it would change the dynamics, and the paper's environments do not call it.
    """
    model.body_mass[:] *= mass
    model.dof_damping[:] *= damping


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
    """B cheetahs with different covariates, stepped together exactly as :class:`HalfCheetahEnv` steps one.

    Parameters
    ----------
    covariates : Tensor, shape (B, 2)
        Mass and damping factors.
    seed : int
        Seed of the initial states.
    """

    def __init__(self, covariates: Tensor, seed: int) -> None:
        base = _standard()
        # All cheetahs share one MjData: it takes megabytes, a cheetah's state only a few hundred bytes.
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
        """Positions (B, 9), the one along the track first; a writable view."""
        return self._physics[:, 1:10]

    @property
    def qvel(self) -> np.ndarray:
        """Velocities (B, 9); a writable view."""
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
    """Simulate B cheetahs under P plans each, on as many threads as torch may use.

    The 18-d state lacks two parts of MuJoCo's state: the position along the track, which has no influence, and the
    solver's warm start, which changes results by less than the solver's tolerance.

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
    substeps, _ = mujoco_rollout.rollout(
        [model for model in models for _ in range(count)],
        [mujoco.MjData(base.model) for _ in range(torch.get_num_threads())],
        initial.repeat(count, axis=0),
        control,
    )
    physics = torch.from_numpy(substeps[:, FRAME_SKIP - 1 :: FRAME_SKIP]).view(batch, count, horizon, -1)
    qpos, qvel = physics[..., 1:10], physics[..., 10:19]
    x = torch.cat((torch.zeros_like(qpos[..., :1, 0]), qpos[..., 0]), dim=-1)
    after = torch.cat(((x.diff() / base.dt)[..., None], qpos[..., 1:], qvel), dim=-1)
    before = states.double()[:, None, None].expand(-1, count, 1, -1)
    return torch.cat((before, after), dim=2)[None]


def set_state(env: HalfCheetahEnv, state: np.ndarray) -> None:
    """Set the state (18,) of a cheetah; its position along the track stays."""
    env.set_state(np.concatenate((env.data.qpos[:1], state[1:9])), state[9:])
    env._forward_velocity = float(state[0])
