"""Shape letters and the small typed records that pass between the layers of the package.

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

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

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
    """Walls of a training set: where states pile up, and what they look like there.

    Attributes
    ----------
    low, high : Tensor, shape (D,)
        Position of the wall on either side of a coordinate; infinite where there is none.
    low_contact, high_contact : Tensor, shape (D, D)
        Row d: the state on contact with the wall of coordinate d, NaN where a coordinate varies there.
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
        Known values, sorted; None where the column holds amounts.
    """

    name: str
    categories: tuple[int | str | bool, ...] | None


@dataclass(frozen=True)
class Schema:
    """Columns of a table of trajectories, and what they mean.

    Attributes
    ----------
    state : tuple of str
        State columns, in order.
    action : tuple of str
        Action columns; exactly one where actions are discrete.
    num_actions : int or None
        Number of discrete actions, coded 0 … num_actions-1; None where actions are continuous.
    agent, time : str
        Agent id column (integers or strings) and step column (consecutive integers within a trajectory).
    episode : str
        Column that numbers the trajectories of an agent, used where a table has it.
    terminated : str
        Optional boolean column: True on the last state of a trajectory that really ended.
    reward : str
        Optional column: the reward of the step that leaves the row.
    action_columns : tuple of ActionColumn
        The columns that actions were encoded from, where they do not stand in the table as they are used: `action` then
        names the coordinates (amounts, and an indicator for every category), or the only column's codes.
    step : float, optional
        Time between consecutive rows in the units of the user's table; None where `time` counts steps.
    gaps : {'error', 'split'}
        What further tables may do where rows are missing.
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

    @property
    def state_dim(self) -> int:
        return len(self.state)

    @property
    def action_dim(self) -> int:
        """Number of action columns (1 for discrete actions)."""
        return len(self.action)

    @property
    def actions_as_given(self) -> tuple[ActionColumn, ...]:
        """The action columns as users know them, whether or not they were encoded."""
        if self.action_columns:
            return self.action_columns
        codes = None if self.num_actions is None else tuple(range(self.num_actions))
        return tuple(ActionColumn(name, codes) for name in self.action)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Schema:
        columns = [
            ActionColumn(name, None if categories is None else tuple(categories))
            for name, categories in values.get("action_columns", ())
        ]
        tuples = {"state": tuple(values["state"]), "action": tuple(values["action"]), "action_columns": tuple(columns)}
        return cls(**{**values, **tuples})
