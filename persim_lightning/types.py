"""Shape letters, and the small typed records that the layers of the package exchange.

Shape letters, used in every docstring:

==  ==========================================
B   batch: transitions, episodes, copies
N   agents
M   ensemble members
D   state coordinates
A   action coordinates, or number of discrete actions
R   rank of a factorization
H   horizon: steps of a rollout
K   optimizer steps in one chunk of batches
==  ==========================================
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Transitions(NamedTuple):
    """A batch of one-step transitions.

    Attributes
    ----------
    agent : Tensor, shape (...), int64
        Agent *index*, 0 … N-1 (not the id in the table).
    state : Tensor, shape (..., D)
    action : Tensor, shape (...) int64 for discrete actions, (..., A) for continuous ones
    delta : Tensor, shape (..., D)
        Next state minus state.
    """

    agent: Tensor
    state: Tensor
    action: Tensor
    delta: Tensor


class Chains(NamedTuple):
    """A batch of chains of K steps, see :mod:`persim_lightning.data.chains`.

    Attributes
    ----------
    agent : Tensor, shape (...), int64
    state : Tensor, shape (..., D)
        State in which the chain starts.
    action : Tensor, shape (..., K) int64 or (..., K, A)
    duration : Tensor, shape (..., K)
        Base steps, zero after the end of the chain.
    target : Tensor, shape (..., K, D)
        States at the ends of the steps.
    observed : Tensor, shape (..., K, D), bool
        Coordinates of the targets that were observed.
    scored : Tensor, shape (..., K, D), bool
        Those of them that are predicted in training; others are on walls.
    """

    agent: Tensor
    state: Tensor
    action: Tensor
    duration: Tensor
    target: Tensor
    observed: Tensor
    scored: Tensor


class Statistics(NamedTuple):
    """Statistics of a training set, each of shape (D,) or (A,).

    Means, standard deviations and the root mean square of Δs normalize a simulator's inputs and targets;
    `state_low` and `state_high` are the range of all states. `action_mean` and `action_std` are empty (shape (0,)) for
    discrete actions.
    """

    state_mean: Tensor
    state_std: Tensor
    state_low: Tensor
    state_high: Tensor
    delta_rms: Tensor
    action_mean: Tensor
    action_std: Tensor


class WallContacts(NamedTuple):
    """Walls of a training set: positions at which states pile up, and the states in contact with them.

    Attributes
    ----------
    low, high : Tensor, shape (D,)
        Positions of the lower and the upper wall of each coordinate; infinite where there is no wall.
    low_contact, high_contact : Tensor, shape (D, D)
        Row d: the state in contact with the wall of coordinate d; NaN for coordinates that vary during contact.
    """

    low: Tensor
    high: Tensor
    low_contact: Tensor
    high_contact: Tensor


class ActionColumn(NamedTuple):
    """An action column of a user's table.

    Attributes
    ----------
    name : str
    categories : tuple of int, str or bool, or None
        Allowed values, sorted; None for a column of continuous quantities.
    """

    name: str
    categories: tuple[int | str | bool, ...] | None


_TUPLES = ("state", "action", "inputs", "events")


@dataclass(frozen=True)
class Schema:
    """Names and meanings of the columns in a table of trajectories.

    Attributes
    ----------
    state : tuple of str
        State columns, in order.
    action : tuple of str
        Action columns; exactly one where actions are discrete, none if nothing is decided and there are no inputs.
    num_actions : int or None
        Number of discrete actions, coded 0 … num_actions-1 (1 if there are no action columns); None where actions are
        continuous.
    agent, time : str
        Agent id column (integers or strings) and step column (consecutive integers within a trajectory).
    episode : str
        Optional column: number of the trajectory among those of its agent.
    terminated : str
        Optional boolean column: True in the last row of a trajectory that terminated (False if it was truncated).
    reward : str
        Optional column: reward of the step from this row to the next.
    action_columns : tuple of ActionColumn
        The user's action columns, if actions were encoded from them. `action` then names the encoded coordinates: one
        for each quantity and an indicator for each category, or a single column of codes. Empty if the table already
        contains actions in the form that simulators take.
    step : float, optional
        Base step in the units of the user's table, see :class:`~persim_lightning.data.tables.times.Clock`; None if
        `time` counts steps.
    gaps : {'keep', 'error', 'split'}
        What to do in a further table where rows are not one base step apart.
    encoded : bool
        Whether times and actions were converted from a user's table; False for tables in canonical form.
    calendar : {'', 'month', 'month end', 'business day'}
        Unit in which `step` counts dates; empty for seconds, and for times that are numbers.
    inputs : tuple of str
        User columns among `action_columns` that are known but not decided, such as meals or weather.
    events : tuple of str
        User columns among `action_columns` whose values act for one base step, such as doses; others hold until the
        next row.
    covariates : tuple of ActionColumn
        User columns that are constant for an agent.
    bounds : dict
        State column to its lower and upper limit, None where there is none; predictions keep them.
    double : bool
        Whether states are float64, because float32 would round the changes of a column with large values, such as map
        coordinates.
    fill : dict
        Column to what its empty cells mean, in further tables, too.
    """

    state: tuple[str, ...]
    action: tuple[str, ...]
    num_actions: int | None
    agent: str = "agent"
    time: str = "t"
    episode: str = "episode"
    terminated: str = "terminated"
    reward: str = "reward"
    action_columns: tuple[ActionColumn, ...] = ()
    step: float | None = None
    gaps: str = "error"
    encoded: bool = False
    calendar: str = ""
    inputs: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    covariates: tuple[ActionColumn, ...] = ()
    bounds: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    double: bool = False
    fill: dict[str, float | str] = field(default_factory=dict)

    @property
    def state_dim(self) -> int:
        return len(self.state)

    @property
    def state_dtype(self) -> torch.dtype:
        """Type of states: float32, or float64 if the schema is `double`."""
        return torch.float64 if self.double else torch.float32

    @property
    def action_dim(self) -> int:
        """Number of action columns (1 for discrete actions)."""
        return len(self.action)

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """Lower and upper limit of every state, infinite where there is none; empty if there are no bounds."""
        if not self.bounds:
            return ()
        pairs = [self.bounds.get(name, (None, None)) for name in self.state]
        return tuple((-math.inf if low is None else low, math.inf if high is None else high) for low, high in pairs)

    @property
    def user_actions(self) -> tuple[ActionColumn, ...]:
        """Action columns of the user's table, whether or not they were encoded."""
        if self.action_columns:
            return self.action_columns
        codes = None if self.num_actions is None else tuple(range(self.num_actions))
        return tuple(ActionColumn(name, codes) for name in self.action)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, which JSON and weights-only checkpoints can hold."""
        columns, covariates = (
            [[name, None if categories is None else list(categories)] for name, categories in part]
            for part in (self.action_columns, self.covariates)
        )
        lists = {name: list(getattr(self, name)) for name in _TUPLES}
        bounds = {name: list(pair) for name, pair in self.bounds.items()}
        return {**asdict(self), **lists, "action_columns": columns, "covariates": covariates, "bounds": bounds}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Schema:
        columns, covariates = (
            tuple(
                ActionColumn(name, None if categories is None else tuple(categories))
                for name, categories in values.get(part, ())
            )
            for part in ("action_columns", "covariates")
        )
        tuples = {name: tuple(values.get(name, ())) for name in _TUPLES}
        # Older files do not say whether the table was encoded.
        encoded = values.get("encoded", bool(columns))
        bounds = {name: tuple(pair) for name, pair in values.get("bounds", {}).items()}
        parts = {"action_columns": columns, "covariates": covariates, "encoded": encoded, "bounds": bounds}
        return cls(**{**values, **tuples, **parts})
