"""Personalised simulators of many different agents, from one trajectory each."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persim_lightning.personalized import PersonalizedSimulator
    from persim_lightning.predictions import Plan, Prediction

__all__ = ["PersonalizedSimulator", "Plan", "Prediction"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: commands that need a part of the package should not wait for Lightning.
    if name not in __all__:
        raise AttributeError(f"module 'persim_lightning' has no attribute '{name}'")
    from persim_lightning import personalized

    return getattr(personalized, name)
