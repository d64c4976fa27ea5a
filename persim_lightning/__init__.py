"""Personalized simulators of many different agents, from one trajectory each."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persim_lightning.api.answers import Plan, Prediction
    from persim_lightning.api.simulator import PersonalizedSimulator

_HOMES = {"PersonalizedSimulator": "api.simulator", "Plan": "api.answers", "Prediction": "api.answers"}

__all__ = ["PersonalizedSimulator", "Plan", "Prediction"]


def __getattr__(name: str) -> Any:
    # Load lazily: commands that need a part of the package should not wait for Lightning.
    if name not in _HOMES:
        raise AttributeError(f"module 'persim_lightning' has no attribute '{name}'")
    return getattr(import_module(f"persim_lightning.{_HOMES[name]}"), name)
