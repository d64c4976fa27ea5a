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
        Actions by column, H values each.
    recorded : ndarray, shape (K+1, D), or None
        Recorded states from the same time on, under the recorded actions.
    half_width : ndarray, shape (H+1, D), or None
        Half width of intervals around the mean, zero at the start; None without `level`.
    limits : ndarray, shape (2, D), or None
        Lower and upper limits of the states, which intervals keep; None if the table has no bounds.
    elapsed : ndarray, shape (H+1,), or None
        Base steps since the start; None for 0, 1, 2 …
    """

    state: tuple[str, ...]
    members: np.ndarray
    actions: dict[str, list[Any]]
    recorded: np.ndarray | None = None
    half_width: np.ndarray | None = None
    limits: np.ndarray | None = None
    elapsed: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """Mean over members, shape (H+1, D)."""
        mean: np.ndarray = self.members.mean(0)
        return mean

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation over members, shape (H+1, D), which underestimates errors; see `half_width`."""
        spread: np.ndarray = self.members.std(0)
        return spread

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the intervals, (H+1, D) each.

        Raises
        ------
        ConfigurationError
            If no level was given.
        """
        if self.half_width is None:
            raise ConfigurationError("intervals need a level, such as level=0.9")
        low, high = self.mean - self.half_width, self.mean + self.half_width
        if self.limits is None:
            return low, high
        return np.clip(low, *self.limits), np.clip(high, *self.limits)

    def to_dict(self) -> dict[str, list[Any]]:
        """Convert to columns: `step`, states (with ` low` and ` high` ends if known), and actions (None at the end)."""
        steps = list(range(len(self.mean))) if self.elapsed is None else self.elapsed.tolist()
        columns: dict[str, list[Any]] = {"step": steps}
        parts = {"": self.mean}
        if self.half_width is not None:
            parts |= dict(zip((" low", " high"), self.interval, strict=True))
        for index, name in enumerate(self.state):
            columns |= {f"{name}{end}": values[:, index].tolist() for end, values in parts.items()}
        return columns | {name: [*values, None] for name, values in self.actions.items()}


@dataclass(frozen=True)
class Plan:
    """Planned actions and their predicted result.

    Attributes
    ----------
    actions : dict of str to list
        By column, H values each.
    value : float
        Predicted sum of rewards.
    prediction : Prediction
    """

    actions: dict[str, list[Any]]
    value: float
    prediction: Prediction
