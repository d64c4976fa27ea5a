"""Reads tables of agents' covariates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from persim_lightning.data.tables.checks import check_type, is_number
from persim_lightning.data.tables.sources import read_table
from persim_lightning.errors import TableError


def load_covariates(
    path: Path, agent_ids: Sequence[int | str], agent: str = "agent"
) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the covariates of some agents.

    Parameters
    ----------
    path : Path
        A table with a column of ids and one column for each covariate.
    agent_ids : sequence
        N ids; they decide the order of the result.
    agent : str
        Name of the column of ids.

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
    """Like :func:`load_covariates`, for a table in memory; `source` is its name in error messages."""
    if agent not in table.column_names:
        raise TableError(f"{source}: no column '{agent}'")
    names = tuple(name for name in table.column_names if name != agent)
    rows = {label: row for row, label in enumerate(table[agent].to_pylist())}
    missing = [label for label in agent_ids if label not in rows]
    if missing:
        raise TableError(f"{source}: no row for agent {missing[0]} (and {len(missing) - 1} others)")
    for name in names:
        check_type(source, name, table[name].type, is_number(table[name].type), "numbers")
    selected = [rows[label] for label in agent_ids]
    for name in names:
        column = table[name].cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
        bad = [label for label, row in zip(agent_ids, selected, strict=True) if not np.isfinite(column[row])]
        if bad:
            raise TableError(
                f"{source}: column '{name}', agent {bad[0]}: empty, NaN or infinite (and {len(bad) - 1} other agents)"
            )
    values = np.stack([table[name].to_numpy() for name in names], axis=1) if names else np.zeros((table.num_rows, 0))
    return names, values[selected]
