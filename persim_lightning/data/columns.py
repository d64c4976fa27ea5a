"""What the columns of a user's own table mean, and tables from wherever they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from persim_lightning.data.minari_dataset import minari_table
from persim_lightning.data.table import read_table
from persim_lightning.errors import ConfigurationError, TableError


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


def as_table(source: Any, name: str = "table") -> tuple[pa.Table, str]:
    """An Arrow table from a user's data, and what to call it in errors.

    Parameters
    ----------
    source : path, pyarrow.Table, pandas or polars DataFrame, dict of columns, or minari.MinariDataset
        A path names a .parquet or .csv file, or the folder of a Minari data set. Data frames need
        nothing installed beside themselves.
    name : str
        What to call it where it is no file.

    Raises
    ------
    TableError
        If it is none of these, or holds no rows.
    """
    if isinstance(source, str | Path):
        return read_table(Path(source)), str(source)
    try:
        if isinstance(source, pa.Table):
            table = source
        elif hasattr(source, "iterate_episodes"):
            table = minari_table(source, name)
        elif isinstance(source, Mapping):
            table = pa.table(dict(source))
        elif hasattr(source, "__arrow_c_stream__"):
            table = pa.table(source)
        else:
            kind = f"{type(source).__module__}.{type(source).__qualname__}"
            raise TableError(
                f"{name}: give a path, a pyarrow table, a pandas or polars data frame, a Minari data set "
                f"or a dict of columns, not {kind}"
            )
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TableError(f"{name}: cannot be read ({str(error).splitlines()[0]})") from error
    if not table.num_rows:
        raise TableError(f"{name}: the table has no rows")
    return table, name
