"""Tables of agents' covariates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from persim_lightning.data.tables.checks import is_number
from persim_lightning.data.tables.sources import read_table
from persim_lightning.errors import TableError


def load_covariates(
    path: Path, agent_ids: Sequence[int | str], agent: str = "agent"
) -> tuple[tuple[str, ...], np.ndarray]:
    """Covariates of the given agents, for evaluation and pictures only.

    Parameters
    ----------
    path : Path
        A table with a column of ids and one column per covariate.
    agent_ids : sequence
        N ids, in the wanted order.
    agent : str
        The column of ids.

    Returns
    -------
    names : tuple of str
    values : ndarray, shape (N, C)

    Raises
    ------
    TableError
        If an agent is missing or a covariate is not a number.
    """
    return covariates_from_table(read_table(path), agent_ids, str(path), agent)


def covariates_from_table(
    table: pa.Table, agent_ids: Sequence[int | str], source: str, agent: str = "agent"
) -> tuple[tuple[str, ...], np.ndarray]:
    """As :func:`load_covariates`, of a table in memory; `source` names it in errors, `agent` is its column of ids."""
    if agent not in table.column_names:
        raise TableError(f"{source}: no column '{agent}'")
    names = tuple(name for name in table.column_names if name != agent)
    rows = {label: row for row, label in enumerate(table[agent].to_pylist())}
    missing = [label for label in agent_ids if label not in rows]
    if missing:
        raise TableError(f"{source}: no row for agent {missing[0]} (and {len(missing) - 1} others)")
    for name in names:
        if not is_number(table[name].type):
            raise TableError(f"{source}: column '{name}' holds {table[name].type}, not numbers")
    chosen = [rows[label] for label in agent_ids]
    for name in names:
        column = table[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
        bad = [label for label, row in zip(agent_ids, chosen, strict=True) if not np.isfinite(column[row])]
        if bad:
            raise TableError(
                f"{source}: column '{name}', agent {bad[0]}: empty, NaN or infinite (and {len(bad) - 1} other agents)"
            )
    values = np.stack([table[name].to_numpy() for name in names], axis=1) if names else np.zeros((table.num_rows, 0))
    return names, values[chosen]
