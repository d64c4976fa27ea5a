"""The user's description of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from persim_lightning.errors import ConfigurationError


@dataclass(frozen=True)
class TableColumns:
    """Meaning of the columns in a table; columns that are not named here are ignored.

    Parameters
    ----------
    state : list of str
        Numeric columns to predict.
    action : list of str
        Actions from a row to the next; empty if nothing is decided. Numbers are quantities; strings and booleans are
        categories.
    agent : str
        Id of the agent: integers or strings.
    time : str
        Time of the row: numbers, dates or timestamps. Rows may be in any order.
    episode : str, optional
        Number or name of the trajectory, if agents have several.
    reward : str, optional
        Reward of the step from a row to the next.
    terminated : str, optional
        True (or 1) in the last row of a trajectory that terminated (and was not only truncated).
    categorical : list of str
        Action or input columns whose numbers are codes of categories, not quantities.
    inputs : list of str
        Columns that are known and influence the states, but that nobody decides: meals, weather, prices.
    events : list of str, optional
        Action or input columns whose values act for one base step, such as doses. The values of other columns hold
        until the next row. By default found in the table, see :func:`~persim_lightning.data.tables.events.find_events`.
    fill : dict
        Column to what an empty cell of an action or input means: a number, a category, or 'last' for the value before
        it. By default empty cells of events mean 0, and steps from rows with other empty cells are left out.
    covariates : list of str
        Columns that are constant for an agent, numbers or categories; empty cells are allowed. The prior of an agent's
        factor depends on them.
    bounds : dict
        State column to its lower and upper limit, such as `{"conc": (0, None)}`; predictions and intervals keep them.
    step : float or 'row', optional
        Base step, in seconds if times are dates; found in the table by default. 'row': every row is one step after the
        row before it, whatever their times are.
    gaps : {'keep', 'error', 'split'}
        What to do where rows are not one base step apart: learn from them as they are, raise an error, or start a new
        trajectory of the same agent.

    Raises
    ------
    ConfigurationError
        If an option is invalid, or a column has two meanings.
    """

    state: list[str]
    action: list[str]
    agent: str = "agent"
    time: str = "t"
    episode: str | None = None
    reward: str | None = None
    terminated: str | None = None
    categorical: list[str] = field(default_factory=list)
    step: float | Literal["row"] | None = None
    gaps: Literal["keep", "error", "split"] = "keep"
    inputs: list[str] = field(default_factory=list)
    events: list[str] | None = None
    fill: dict[str, float | str] = field(default_factory=dict)
    covariates: list[str] = field(default_factory=list)
    bounds: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in ("state", "action", "inputs", "categorical", "covariates"):
            if isinstance(getattr(self, role), str):
                raise ConfigurationError(f"columns.{role} must be a list of columns")
        self._name_columns_by_text()
        if not self.state:
            raise ConfigurationError("columns.state must list at least one column")
        for role in ("categorical", "events", "fill"):
            unknown = [name for name in getattr(self, role) or () if name not in self.acting]
            if unknown:
                raise ConfigurationError(f"columns.{role}: '{unknown[0]}' is not among the action and input columns")
        for name, pair in self.bounds.items():
            if name not in self.state:
                raise ConfigurationError(f"columns.bounds: '{name}' is not among the state columns")
            if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
                raise ConfigurationError(f"columns.bounds: give '{name}' a lower and an upper limit, such as [0, null]")
            low, high = pair
            if low is not None and high is not None and not low < high:
                raise ConfigurationError(f"columns.bounds: the limits of '{name}' are not ascending: {low}, {high}")
        if self.step not in (None, "row") and (isinstance(self.step, str) or not self.step > 0):
            raise ConfigurationError(f"columns.step {self.step!r} must be a positive number or 'row'")
        if self.gaps not in ("keep", "error", "split"):
            raise ConfigurationError(f"columns.gaps {self.gaps!r}: choose 'keep', 'error' or 'split'")
        used = self.used
        duplicate = sorted({name for name in used if used.count(name) > 1})
        if duplicate:
            raise ConfigurationError(f"columns: '{duplicate[0]}' is named twice; a column can have only one meaning")

    def _name_columns_by_text(self) -> None:
        """Convert names that are numbers, as headers of data frames may be."""
        for role in ("state", "action", "inputs", "categorical", "covariates", "events"):
            names = getattr(self, role)
            if names is not None:
                object.__setattr__(self, role, [str(name) for name in names])
        for role in ("fill", "bounds"):
            object.__setattr__(self, role, {str(name): value for name, value in getattr(self, role).items()})
        for role in ("agent", "time", "episode", "reward", "terminated"):
            name = getattr(self, role)
            if name is not None:
                object.__setattr__(self, role, str(name))

    @property
    def ids(self) -> list[str]:
        """Columns of ids."""
        return [self.agent] if self.episode is None else [self.agent, self.episode]

    @property
    def acting(self) -> list[str]:
        """Names of action and input columns, in the order in which they are encoded."""
        return [*self.action, *self.inputs]

    @property
    def used(self) -> list[str]:
        """Names of all columns that are used."""
        optional = (self.episode, self.reward, self.terminated)
        return [
            self.agent,
            self.time,
            *self.state,
            *self.acting,
            *self.covariates,
            *(name for name in optional if name is not None),
        ]
