"""What the columns of a user's own table mean, and tables from wherever they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from persim_lightning.errors import ConfigurationError


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table mean; columns that are not named here are ignored.

    Parameters
    ----------
    state : list of str
        Numeric columns to predict.
    action : list of str
        What was done between a row and the next one. Numbers are amounts; strings and booleans are categories.
    agent : str
        Who: integers or strings.
    time : str
        When: numbers, dates or timestamps; rows may stand in any order.
    episode : str, optional
        Numbers the trajectories of an agent, where it has several.
    reward : str, optional
        What the step from a row to the next one earned.
    terminated : str, optional
        True (or 1) in the last row of a trajectory that really ended.
    categorical : list of str
        Action columns whose numbers are codes, not amounts.
    step : float or 'row', optional
        Time between one row and the next, in seconds where times are dates; 'row' where rows follow each other
        whatever their times say. Found in the table where not given: the commonest difference.
    gaps : {'error', 'split'}
        What to do where a trajectory misses rows: stop, or go on with a new trajectory of the same agent.
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
        strangers = [name for name in self.categorical if name not in self.action]
        if strangers:
            raise ConfigurationError(f"columns.categorical: '{strangers[0]}' is not among the action columns")
        if self.step not in (None, "row") and (isinstance(self.step, str) or not self.step > 0):
            raise ConfigurationError(f"columns.step {self.step!r} must be a positive number or 'row'")
        if self.gaps not in ("error", "split"):
            raise ConfigurationError(f"columns.gaps {self.gaps!r}: choose 'error' or 'split'")
        used = self.used
        doubled = sorted({name for name in used if used.count(name) > 1})
        if doubled:
            raise ConfigurationError(f"columns: '{doubled[0]}' is named twice; a column has one meaning")

    @property
    def used(self) -> list[str]:
        """Every column that is named."""
        optional = (self.episode, self.reward, self.terminated)
        return [self.agent, self.time, *self.state, *self.action, *(name for name in optional if name is not None)]
