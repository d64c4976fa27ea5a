"""The paper's three environments, registered with gymnasium as `persim/<Name>-v0`."""

from __future__ import annotations

import gymnasium

from persim_lightning.envs.cart_pole import CART_POLE
from persim_lightning.envs.environment import Environment
from persim_lightning.envs.half_cheetah import HALF_CHEETAH
from persim_lightning.envs.mountain_car import MOUNTAIN_CAR
from persim_lightning.errors import ConfigurationError

ENVIRONMENTS = {environment.name: environment for environment in (MOUNTAIN_CAR, CART_POLE, HALF_CHEETAH)}
# Gymnasium imports these modules when it makes the environment: MuJoCo is imported for HalfCheetah only.
_ENTRY_POINTS = {
    "mountaincar": "persim_lightning.envs.mountain_car:MountainCarEnv",
    "cartpole": "persim_lightning.envs.cart_pole:CartPoleEnv",
    "halfcheetah": "persim_lightning.envs.half_cheetah_physics:HalfCheetahEnv",
}

for _environment in ENVIRONMENTS.values():
    if _environment.gym_id not in gymnasium.registry:
        gymnasium.register(
            _environment.gym_id, _ENTRY_POINTS[_environment.name], max_episode_steps=_environment.max_steps
        )


def get_environment(name: str) -> Environment:
    """Return the environment with this short name.

    Raises
    ------
    ConfigurationError
        If the name is unknown.
    """
    if name not in ENVIRONMENTS:
        raise ConfigurationError(f"unknown environment '{name}': choose from {', '.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[name]


__all__ = ["ENVIRONMENTS", "Environment", "get_environment"]
