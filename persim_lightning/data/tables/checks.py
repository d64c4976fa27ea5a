"""Checks of single columns and rows of a table; errors name the table, column, agent and row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import numpy as np
import pyarrow as pa

from persim_lightning.errors import TableError

# Ids of the agents, and for every row of a table the index of its agent.
RowAgents = tuple[Sequence[int | str], np.ndarray]
# Row of the user's table for each row of a table that was derived from it.
_original_rows: ContextVar[np.ndarray | None] = ContextVar("_original_rows", default=None)


@contextlib.contextmanager
def derived_from(rows: np.ndarray) -> Iterator[None]:
    """Name rows of the user's table in errors about a table whose row i was the user's row `rows[i]`."""
    token = _original_rows.set(rows)
    try:
        yield
    finally:
        _original_rows.reset(token)


def row_agents(ids: pa.ChunkedArray) -> RowAgents:
    """Agents of all rows from a column of ids, none of which is empty."""
    encoded = ids.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type contains numbers."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def is_numeral(value: object) -> bool:
    """Whether text can be read as a number."""
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def check_type(source: str, column: str, kind: pa.DataType, valid: bool, expected: str) -> None:
    """Raise a TableError unless the type of a column is `valid`; `expected` says which types are."""
    if not valid:
        raise TableError(f"{source}: column '{column}' has type {kind}, expected {expected}")


def check_rows(
    source: str,
    column: str,
    bad: np.ndarray,
    problem: str,
    order: np.ndarray | None = None,
    agents: RowAgents | None = None,
) -> None:
    """Raise an error for the first bad row, if there is one; the message counts the others.

    Parameters
    ----------
    source, column : str
        Names of the table and of the column in the message.
    bad : ndarray of bool, shape (R,)
    problem : str
        What is wrong with the bad rows.
    order : ndarray, shape (R,), optional
        Row of the table for each entry of `bad`; `bad` is in the table's order without it.
    agents : RowAgents, optional

    Raises
    ------
    TableError
    """
    rows = np.flatnonzero(bad)
    if len(rows):
        raise TableError(describe_rows(source, column, rows if order is None else order[rows], problem, agents))


def describe_rows(source: str, column: str, rows: np.ndarray, problem: str, agents: RowAgents | None = None) -> str:
    """Say what is wrong with the first of some rows of a table, and count the others."""
    row = rows[0]
    agent = "" if agents is None else f"agent {agents[0][agents[1][row]]}, "
    original = _original_rows.get()
    row = row if original is None else original[row]
    more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
    return f"{source}: column '{column}', {agent}row {row}: {problem}{more}"
