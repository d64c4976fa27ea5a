"""Reads and checks the columns of a canonical table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from persim_lightning.data.tables.checks import check_rows, check_type, is_number, is_numeral
from persim_lightning.errors import TableError
from persim_lightning.types import Schema


class ColumnReader:
    """Reads the columns of one table as arrays, and raises a TableError if a column is wrong.

    Parameters
    ----------
    table : pyarrow.Table
    schema : Schema
    source : str
        Name of the table in error messages.

    Attributes
    ----------
    order : ndarray, shape (R,), int64
        Order in which methods return rows. The caller sets it when it has read ids and times.
    agents : (ids, ndarray), optional
        Agent ids, and each row's index among them; the caller sets it, so that messages can name agents.
    """

    def __init__(self, table: pa.Table, schema: Schema, source: str) -> None:
        self._table, self._schema, self._source = table, schema, source
        self.order = np.arange(table.num_rows)
        self.agents: tuple[tuple[int | str, ...], np.ndarray] | None = None

    def check_names(self) -> None:
        """Check that columns are neither missing, duplicate nor unknown."""
        schema, present = self._schema, self._table.column_names
        required = [schema.agent, schema.time, *schema.state, *schema.action]
        optional = {schema.episode, schema.terminated, schema.reward}
        missing = [name for name in required if name not in present]
        unknown = [name for name in present if name not in required and name not in optional]
        duplicate = sorted({name for name in present if present.count(name) > 1})
        if missing:
            raise TableError(
                f"{self._source}: missing column(s) {', '.join(missing)}; the table has {', '.join(present)}"
            )
        if duplicate:
            raise TableError(f"{self._source}: duplicate column(s) {', '.join(duplicate)}")
        if unknown:
            allowed = ", ".join([*required, *sorted(optional)])
            raise TableError(f"{self._source}: unknown column(s) {', '.join(unknown)}; allowed are {allowed}")

    def agent_ids(self) -> tuple[tuple[int | str, ...], np.ndarray]:
        """Ids of the agents, sorted, and every row's index among them, in the table's order."""
        name = self._schema.agent
        kind = self._table[name].type
        valid = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        column = self._column(name, valid, "integers or strings")
        self._check_rows(name, pc.is_null(column).to_numpy(), "empty agent id")
        # Encoded, because an array of Python's or NumPy's strings would need more memory than the table.
        encoded = column.combine_chunks().dictionary_encode()
        ids = encoded.dictionary.to_pylist()
        order = sorted(range(len(ids)), key=ids.__getitem__)
        rank = np.empty(len(ids), dtype=np.int64)
        rank[order] = np.arange(len(ids))
        return tuple(ids[index] for index in order), rank[encoded.indices.to_numpy()]

    def integers(self, name: str) -> np.ndarray:
        """An int64 column, in the table's order."""
        column = self._column(name, pa.types.is_integer(self._table[name].type), "integers")
        self._check_rows(name, pc.is_null(column).to_numpy(), "empty")
        return column.to_numpy().astype(np.int64)

    def states(self, name: str) -> np.ndarray:
        """A float64 column of a state in sorted order, NaN where it is empty.

        Raises
        ------
        TableError
            If the column is empty, or a value is infinite.
        """
        values = self._numbers(name)
        self._check_rows(name, np.isinf(values), "infinite")
        if np.isnan(values).all():
            raise TableError(f"{self._source}: state column '{name}' is empty")
        return values

    def numbers(self, name: str, may_be_empty: np.ndarray) -> np.ndarray:
        """A finite float64 column in sorted order; rows in `may_be_empty` become 0."""
        values = self._numbers(name)
        self._check_rows(name, ~np.isfinite(values) & ~may_be_empty, "empty, NaN or infinite")
        return np.where(may_be_empty, 0.0, values)

    def _numbers(self, name: str) -> np.ndarray:
        """A float64 column in sorted order, NaN where it is empty."""
        kind = self._table[name].type
        if pa.types.is_string(kind):
            cells = self._table[name].to_pylist()
            text = np.array([cell is not None and not is_numeral(cell) for cell in cells])[self.order]
            shown = "" if not text.any() else cells[self.order[int(text.argmax())]]
            self._check_rows(name, text, f"'{shown}' is not a number")
        column = self._column(name, is_number(kind), "numbers")
        values: np.ndarray = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()[self.order]
        return values

    def final_actions(self, last: np.ndarray) -> torch.Tensor:
        """Actions in the rows `last` of the sorted table: (E,) int64 codes, -1 if empty, or (E, A) with NaN."""
        columns = [self._table[name].cast(pa.float64(), safe=False).fill_null(np.nan) for name in self._schema.action]
        values = np.stack([column.to_numpy()[self.order[last]] for column in columns], axis=1).astype(np.float32)
        if self._schema.num_actions is None:
            return torch.from_numpy(values)
        return torch.from_numpy(np.nan_to_num(values[:, 0], nan=-1.0).astype(np.int64))

    def action_codes(self, name: str, num_actions: int, may_be_empty: np.ndarray) -> np.ndarray:
        """An int64 column of discrete actions in sorted order; rows in `may_be_empty` become 0."""
        values = self.numbers(name, may_be_empty)
        valid = (values >= 0) & (values < num_actions) & (values == np.floor(values))
        self._check_rows(name, ~valid, f"unknown action, expected 0 … {num_actions - 1}")
        return values.astype(np.int64)

    def terminations(self, name: str, last: np.ndarray) -> np.ndarray:
        """A column of booleans in sorted order, True only in last rows of trajectories."""
        column = self._column(name, pa.types.is_boolean(self._table[name].type), "booleans")
        values = column.fill_null(False).to_numpy()[self.order]
        self._check_rows(name, values & ~last, "terminated, but the trajectory continues")
        return values

    def check_steps(self, time: np.ndarray, last: np.ndarray) -> None:
        """Check that the steps of each trajectory are consecutive; `time` and `last` are sorted, shape (R,)."""
        step = np.diff(time)
        inside = ~last[:-1]
        self._check_rows(self._schema.time, np.r_[False, inside & (step == 0)], "duplicate step")
        gap = np.r_[False, inside & (step != 1)]
        if gap.any():
            row = np.flatnonzero(gap)[0]
            self._check_rows(
                self._schema.time, gap, f"step {time[row]} follows step {time[row - 1]}: steps must be consecutive"
            )

    def check_lengths(self, starts: np.ndarray, offsets: np.ndarray) -> None:
        """Check that every agent has a transition; it may have trajectories of a single row beside longer ones."""
        assert self.agents is not None
        agent = self.agents[1][self.order]
        has_transition = np.zeros(len(self.agents[0]), dtype=bool)
        has_transition[agent[starts[np.diff(offsets) > 1]]] = True
        problem = "the agent's trajectory has a single row, so no transition"
        self._check_rows(self._schema.time, ~has_transition[agent], problem)

    def _column(self, name: str, valid: bool, expected: str) -> pa.ChunkedArray:
        column = self._table[name]
        check_type(self._source, name, column.type, valid, expected)
        return column

    def _check_rows(self, column: str, bad: np.ndarray, problem: str) -> None:
        check_rows(self._source, column, bad, problem, self.order, self.agents)
