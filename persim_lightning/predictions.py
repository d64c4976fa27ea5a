"""Answers of a personalised simulator: predicted trajectories and plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """A predicted trajectory.

    Attributes
    ----------
    state : tuple of str
        Columns.
    members : ndarray, shape (M, H+1, D)
        Trajectory of every ensemble member; starts with the initial state.
    actions : dict of str to list
        The actions that were asked about, by column, H values each.
    recorded : ndarray, shape (K+1, D), or None
        What was recorded from the same moment on, under the recorded actions.
    """

    state: tuple[str, ...]
    members: np.ndarray
    actions: dict[str, list[Any]]
    recorded: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """The prediction: mean over members, shape (H+1, D)."""
        mean: np.ndarray = self.members.mean(0)
        return mean

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation over members, shape (H+1, D): a first measure of uncertainty, and too small a one."""
        spread: np.ndarray = self.members.std(0)
        return spread

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns `step`, the states', and the actions' (None in the last row), ready for a data frame."""
        mean = self.mean
        columns: dict[str, list[Any]] = {"step": list(range(len(mean)))}
        columns |= {name: mean[:, index].tolist() for index, name in enumerate(self.state)}
        return columns | {name: [*values, None] for name, values in self.actions.items()}


@dataclass(frozen=True)
class Plan:
    """What to do, and what should come of it.

    Attributes
    ----------
    actions : dict of str to list
        By column, H values each.
    value : float
        Sum of rewards that the ensemble expects.
    prediction : Prediction
    """

    actions: dict[str, list[Any]]
    value: float
    prediction: Prediction
