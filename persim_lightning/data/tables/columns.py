"""The user's description of a table's columns."""

from __future__ import annotations

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
        Actions between a row and the next. Numbers are quantities; strings and booleans are categories.
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
        Action columns whose numbers are codes of categories, not quantities.
    step : float or 'row', optional
        Time between consecutive rows, in seconds if times are dates. By default the most common difference in the
        table. 'row': every row is one step after the row before it, whatever their times are.
    gaps : {'error', 'split'}
        What to do if a trajectory has missing rows: raise an error, or start a new trajectory of the same agent.

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
    gaps: Literal["error", "split"] = "error"

    def __post_init__(self) -> None:
        for role, names in (("state", self.state), ("action", self.action)):
            if not names or isinstance(names, str):
                raise ConfigurationError(f"columns.{role} must list at least one column")
        unknown = [name for name in self.categorical if name not in self.action]
        if unknown:
            raise ConfigurationError(f"columns.categorical: '{unknown[0]}' is not among the action columns")
        if self.step not in (None, "row") and (isinstance(self.step, str) or not self.step > 0):
            raise ConfigurationError(f"columns.step {self.step!r} must be a positive number or 'row'")
        if self.gaps not in ("error", "split"):
            raise ConfigurationError(f"columns.gaps {self.gaps!r}: choose 'error' or 'split'")
        used = self.used
        duplicate = sorted({name for name in used if used.count(name) > 1})
        if duplicate:
            raise ConfigurationError(f"columns: '{duplicate[0]}' is named twice; a column can have only one meaning")

    @property
    def used(self) -> list[str]:
        """Names of all columns that are used."""
        optional = (self.episode, self.reward, self.terminated)
        return [self.agent, self.time, *self.state, *self.action, *(name for name in optional if name is not None)]
