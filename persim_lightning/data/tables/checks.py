"""Everything that can be wrong with the cells of a table, reported with file, column, agent and row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from persim_lightning.errors import TableError
from persim_lightning.types import Schema


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def is_numeral(value: object) -> bool:
    """Whether a cell of text says a number."""
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def fail_at(
    source: str,
    column: str,
    bad: np.ndarray,
    problem: str,
    order: np.ndarray | None = None,
    agents: tuple[Sequence[int | str], np.ndarray] | None = None,
) -> None:
    """Raise for the first bad row if there is one; say how many more there are.

    Parameters
    ----------
    source, column : str
    bad : ndarray of bool, shape (R,)
    problem : str
    order : ndarray, shape (R,), optional
        Row of the table that each entry of `bad` tells of.
    agents : (ids, ndarray), optional
        Ids, and for every row of the table the index of its agent.

    Raises
    ------
    TableError
    """
    rows = np.flatnonzero(bad)
    if not len(rows):
        return
    row = rows[0] if order is None else order[rows[0]]
    agent = "" if agents is None else f"agent {agents[0][agents[1][row]]}, "
    more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
    raise TableError(f"{source}: column '{column}', {agent}row {row}: {problem}{more}")


class Checker:
    """Reads the columns of one table, in sorted order once `order` is set, and raises TableError where one is wrong."""

    def __init__(self, table: pa.Table, schema: Schema, source: str) -> None:
        self._table, self._schema, self._source = table, schema, source
        self.order = np.arange(table.num_rows)
        self.agents: tuple[tuple[int | str, ...], np.ndarray] | None = None

    def _fail(self, column: str, bad: np.ndarray, problem: str) -> None:
        """Raise for the first True in `bad` (sorted order) if there is one; say how many more there are."""
        fail_at(self._source, column, bad, problem, self.order, self.agents)

    def columns(self) -> None:
        schema, present = self._schema, self._table.column_names
        needed = [schema.agent, schema.time, *schema.state, *schema.action]
        missing = [name for name in needed if name not in present]
        optional = {schema.episode, schema.terminated, schema.reward}
        extra = [name for name in present if name not in needed and name not in optional]
        doubled = sorted({name for name in present if present.count(name) > 1})
        if missing:
            raise TableError(f"{self._source}: missing column(s) {', '.join(missing)}; found {', '.join(present)}")
        if doubled:
            raise TableError(f"{self._source}: column(s) {', '.join(doubled)} stand more than once")
        if extra:
            allowed = ", ".join([*needed, *sorted(optional)])
            raise TableError(f"{self._source}: unknown column(s) {', '.join(extra)}; a table may hold {allowed}")

    def _column(self, name: str, fits: bool, wanted: str) -> pa.ChunkedArray:
        column = self._table[name]
        if not fits:
            raise TableError(f"{self._source}: column '{name}' holds {column.type}, not {wanted}")
        return column

    def labels(self, name: str) -> tuple[tuple[int | str, ...], np.ndarray]:
        """Agents' ids, sorted, and every row's index among them."""
        kind = self._table[name].type
        fits = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        column = self._column(name, fits, "integers or strings")
        self._fail(name, pc.is_null(column).to_numpy(), "no agent id")
        # An array of Python's or NumPy's strings would be larger than the table.
        encoded = column.combine_chunks().dictionary_encode()
        found = encoded.dictionary.to_pylist()
        order = sorted(range(len(found)), key=found.__getitem__)
        rank = np.empty(len(found), dtype=np.int64)
        rank[order] = np.arange(len(found))
        return tuple(found[index] for index in order), rank[encoded.indices.to_numpy()]

    def integers(self, name: str) -> np.ndarray:
        column = self._column(name, pa.types.is_integer(self._table[name].type), "integers")
        self._fail(name, pc.is_null(column).to_numpy(), "empty")
        return column.to_numpy().astype(np.int64)

    def numbers(self, name: str, may_be_empty: np.ndarray) -> np.ndarray:
        """A float64 column in sorted order, finite except where `may_be_empty`, which becomes 0."""
        kind = self._table[name].type
        if pa.types.is_string(kind):
            cells = self._table[name].to_pylist()
            text = np.array([cell is not None and not is_numeral(cell) for cell in cells])[self.order]
            shown = "" if not text.any() else cells[self.order[int(text.argmax())]]
            self._fail(name, text, f"'{shown}' is not a number")
        column = self._column(name, is_number(kind), "numbers")
        values = column.cast(pa.float64()).fill_null(np.nan).to_numpy()[self.order]
        self._fail(name, ~np.isfinite(values) & ~may_be_empty, "empty, NaN or infinite")
        return np.where(may_be_empty, 0.0, values)

    def discrete(self, name: str, num_actions: int, may_be_empty: np.ndarray) -> np.ndarray:
        values = self.numbers(name, may_be_empty)
        known = (values >= 0) & (values < num_actions) & (values == np.floor(values))
        self._fail(name, ~known, f"unknown action: the known ones are 0 … {num_actions - 1}")
        return values.astype(np.int64)

    def flags(self, name: str, last: np.ndarray) -> np.ndarray:
        column = self._column(name, pa.types.is_boolean(self._table[name].type), "booleans")
        values = column.fill_null(False).to_numpy()[self.order]
        self._fail(name, values & ~last, "terminated, but the trajectory goes on")
        return values

    def steps(self, time: np.ndarray, last: np.ndarray) -> None:
        step = np.diff(time)
        inside = ~last[:-1]
        self._fail(self._schema.time, np.r_[False, inside & (step == 0)], "this step stands twice")
        gap = np.r_[False, inside & (step != 1)]
        if gap.any():
            row = np.flatnonzero(gap)[0]
            self._fail(
                self._schema.time, gap, f"step {time[row]} follows step {time[row - 1]}: steps must be consecutive"
            )

    def lengths(self, starts: np.ndarray, offsets: np.ndarray) -> None:
        """Every agent needs a transition; single rows beside longer trajectories are idle."""
        assert self.agents is not None
        agent = self.agents[1][self.order]
        moves = np.zeros(len(self.agents[0]), dtype=bool)
        moves[agent[starts[np.diff(offsets) > 1]]] = True
        self._fail(self._schema.time, ~moves[agent], "the agent's trajectory has a single row, so no transition")
