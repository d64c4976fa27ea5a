"""Reads tables of agents' covariates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from persim_lightning.data.tables.arrow import id_column, numeric_text, plain_column
from persim_lightning.data.tables.checks import check_type, is_number
from persim_lightning.data.tables.sources import read_table
from persim_lightning.errors import TableError

# Names of the unnamed index of a data frame that was written to a file.
_UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")


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
        If an agent is missing or has two rows, or a covariate is not a number or empty.
    """
    names, values = covariates_from_table(read_table(path, (agent,)), agent_ids, str(path), agent)
    empty = np.argwhere(np.isnan(values))
    if len(empty):
        row, column = empty[0]
        raise TableError(
            f"{path}: column '{names[column]}', agent {agent_ids[row]}: empty (and {len(empty) - 1} other cells)"
        )
    return names, values


def covariates_from_table(
    table: pa.Table, agent_ids: Sequence[int | str], source: str, agent: str = "agent"
) -> tuple[tuple[str, ...], np.ndarray]:
    """Like :func:`load_covariates`, for a table in memory named `source`; values of empty cells are NaN."""
    if agent not in table.column_names:
        raise TableError(f"{source}: no column '{agent}'")
    names = tuple(name for name in table.column_names if name != agent and not _UNNAMED.fullmatch(name))
    ids = id_column(table[agent], agent, source).to_pylist()
    rows = {label: row for row, label in enumerate(ids)}
    missing = [label for label in agent_ids if label not in rows]
    if missing:
        raise TableError(f"{source}: no row for agent {missing[0]} (and {len(missing) - 1} others)")
    repeated = np.array([rows[label] != row for row, label in enumerate(ids)])
    if repeated.any():
        label = ids[int(repeated.argmax())]
        raise TableError(f"{source}: column '{agent}': agent {label} is listed twice")
    selected = [rows[label] for label in agent_ids]
    columns = []
    for name in names:
        column = numeric_text(plain_column(table[name]))
        check_type(source, name, column.type, is_number(column.type), "numbers")
        values = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()[selected]
        infinite = [label for label, value in zip(agent_ids, values, strict=True) if np.isinf(value)]
        if infinite:
            raise TableError(f"{source}: column '{name}', agent {infinite[0]}: infinite")
        columns.append(values)
    return names, np.stack(columns, axis=1) if columns else np.zeros((len(selected), 0))
