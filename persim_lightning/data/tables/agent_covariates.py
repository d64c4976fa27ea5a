"""Reads covariates that are columns of the user's table: properties of agents that do not change."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.data.tables.arrow import numeric_text, set_column
from persim_lightning.data.tables.checks import check_rows, is_number
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import PersimWarning, TableError
from persim_lightning.types import ActionColumn

_MAX_CATEGORIES = 100


def infer_covariates(table: pa.Table, columns: TableColumns, source: str) -> tuple[ActionColumn, ...]:
    """Find out which covariates are categories, and collect these.

    Raises
    ------
    TableError
        If a column is empty, of another type, or has too many categories.
    """
    inferred = []
    for name in columns.covariates:
        column = numeric_text(table[name])
        if column.null_count == len(column):
            raise TableError(f"{source}: covariate '{name}' is empty")
        if is_number(column.type):
            inferred.append(ActionColumn(name, None))
            continue
        if not (pa.types.is_string(column.type) or pa.types.is_boolean(column.type)):
            raise TableError(f"{source}: covariate '{name}' has type {column.type}, expected numbers or categories")
        values = sorted(pc.drop_null(pc.unique(column)).to_pylist())
        if not 1 <= len(values) <= _MAX_CATEGORIES:
            raise TableError(
                f"{source}: covariate '{name}' has {len(values)} categories, expected 1 … {_MAX_CATEGORIES}"
            )
        inferred.append(ActionColumn(name, tuple(values)))
    return tuple(inferred)


def encode_covariates(
    table: pa.Table, agent: str, covariates: Sequence[ActionColumn], agent_ids: Sequence[int | str], source: str
) -> np.ndarray:
    """Encode the covariates of agents.

    Parameters
    ----------
    table : pyarrow.Table
    agent : str
        Column of ids.
    covariates : sequence of ActionColumn
    agent_ids : sequence of int or str
        N ids.
    source : str
        Name of the table in error messages.

    Returns
    -------
    ndarray, shape (N, C), float64
        Numbers, and indicators of all categories but the first; NaN where an agent has no value.

    Raises
    ------
    TableError
        If a value differs between rows of an agent, or a category is unknown.
    """
    position = {label: index for index, label in enumerate(agent_ids)}
    ids = table[agent].to_pylist()
    index = np.array([position[label] for label in ids])
    parts = []
    for name, categories in covariates:
        table = set_column(table, name, numeric_text(table[name]) if categories is None else table[name])
        values = table[name].to_pylist()
        first: dict[int, object] = {}
        varies = np.zeros(len(values), dtype=bool)
        for row, (number, value) in enumerate(zip(index.tolist(), values, strict=True)):
            if value is None or value != value:
                continue
            varies[row] = first.setdefault(number, value) != value
        problem = "differs from the agent's other rows; name columns that change inputs"
        check_rows(source, name, varies, problem, None, (list(agent_ids), index))
        chosen = [first.get(number) for number in range(len(agent_ids))]
        if categories is None:
            parts.append(np.array([np.nan if value is None else float(str(value)) for value in chosen])[:, None])
            continue
        unknown = [value for value in chosen if value is not None and value not in categories]
        if unknown:
            expected = ", ".join(map(str, categories))
            raise TableError(
                f"{source}: covariate '{name}': unknown category {unknown[0]!r}, expected one of {expected}"
            )
        block = np.array([[float(value == category) for category in categories[1:]] for value in chosen])
        block = block.reshape(len(chosen), len(categories) - 1)
        block[[value is None for value in chosen]] = np.nan
        parts.append(block)
    return np.concatenate(parts, axis=1)


def warn_of_constant_actions(table: pa.Table, columns: TableColumns, source: str) -> None:
    """Warn of action columns that never change, or that differ between agents but not within one."""
    for name in columns.action:
        pairs = pa.table({"agent": table[columns.agent], "value": table[name]}).drop_null()
        if len(pc.unique(pairs["value"])) < 2:
            warnings.warn(
                f"{source}: action column '{name}' never changes, so its effect cannot be learned: leave it out",
                PersimWarning,
                stacklevel=3,
            )
            continue
        groups = pairs.group_by("agent").aggregate([("value", "count_distinct"), ("value", "count")])
        if pc.max(groups["value_count_distinct"]).as_py() == 1 and pc.max(groups["value_count"]).as_py() > 1:
            warnings.warn(
                f"{source}: action column '{name}' never changes within an agent, so its effect cannot be told from "
                "the agents' differences: name it in covariates",
                PersimWarning,
                stacklevel=3,
            )
