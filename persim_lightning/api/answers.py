"""Answers of a personalized simulator: predicted trajectories and plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from persim_lightning.errors import ConfigurationError


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
    half_width : ndarray, shape (H+1, D), or None
        Of intervals around the mean, where a level was asked for; zero at the start.
    """

    state: tuple[str, ...]
    members: np.ndarray
    actions: dict[str, list[Any]]
    recorded: np.ndarray | None = None
    half_width: np.ndarray | None = None

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

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends, (H+1, D) each.

        Raises
        ------
        ConfigurationError
            If no level was asked for.
        """
        if self.half_width is None:
            raise ConfigurationError("ask for intervals by `level`, such as level=0.9")
        return self.mean - self.half_width, self.mean + self.half_width

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns `step`, the states' (with ` low` and ` high` ends where known), and actions' (None at the end)."""
        columns: dict[str, list[Any]] = {"step": list(range(len(self.mean)))}
        parts = {"": self.mean}
        if self.half_width is not None:
            parts |= dict(zip((" low", " high"), self.interval, strict=True))
        for index, name in enumerate(self.state):
            columns |= {f"{name}{end}": values[:, index].tolist() for end, values in parts.items()}
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
