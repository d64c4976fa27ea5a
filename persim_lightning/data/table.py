"""The canonical form of the data: a long table, one row per (agent, t), in Parquet or CSV.

The next state of a row is the next row's state; the last row of a trajectory has no action. Everything that could be
wrong with a table is checked here, and reported with file, column, agent and row (counted from 0, without header).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from persim_lightning.data.minari_dataset import minari_table, open_minari
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import TableError
from persim_lightning.files import atomic_write
from persim_lightning.types import Schema


def read_table(path: Path) -> pa.Table:
    """Read a Parquet or CSV file, or a Minari data set: its folder, or its file `main_data.hdf5`.

    Raises
    ------
    TableError
        If the file is missing, has another suffix, cannot be parsed, or is empty.
    """
    if path.is_dir() or (path.suffix == ".hdf5" and path.is_file()):
        return minari_table(open_minari(path), str(path))
    readers = {".parquet": pq.read_table, ".csv": _read_csv}
    if path.suffix not in (*readers, ".hdf5"):
        raise TableError(
            f"{path}: tables are read from .parquet or .csv files and Minari data sets, not '{path.suffix}'"
        )
    if not path.is_file():
        raise TableError(f"{path}: no such file")
    try:
        table = readers[path.suffix](path)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: not a readable {path.suffix[1:]} file ({str(error).splitlines()[0]})") from error
    if table.num_rows == 0:
        raise TableError(f"{path}: the table has no rows")
    return table


def _read_csv(path: Path) -> pa.Table:
    """An empty cell is no value in columns of text, either."""
    options = pa.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    return pa.csv.read_csv(path, convert_options=options)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet or CSV file, whole or not at all."""
    if path.suffix not in (".parquet", ".csv"):
        raise TableError(f"{path}: tables are written to .parquet or .csv files, not '{path.suffix}'")
    with atomic_write(path) as temporary:
        if path.suffix == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary, compression="zstd")


def load_trajectories(path: Path, schema: Schema, clock: str | None = None) -> Trajectories:
    """Read and validate a table of trajectories.

    Parameters
    ----------
    path : Path
        Parquet or CSV. Rows may come in any order.
    schema : Schema
        Columns to find. `episode`, `terminated` and `reward` are optional in the table.
    clock : str, optional
        A further column: every row's time, where the table's own counts steps only.

    Raises
    ------
    TableError
        If anything does not fit; see :class:`_Checker`.
    """
    table = read_table(path)
    if clock is None:
        return trajectories_from_table(table, schema, str(path))
    if clock not in table.column_names:
        raise TableError(f"{path}: no column '{clock}'")
    return trajectories_from_table(table.drop_columns(clock), schema, str(path), table[clock].to_numpy())


def trajectories_from_table(
    table: pa.Table, schema: Schema, source: str, clock: np.ndarray | None = None
) -> Trajectories:
    """Validate a table in memory and turn it into tensors.

    Parameters
    ----------
    table : pyarrow.Table
    schema : Schema
    source : str
        Names it in errors.
    clock : ndarray, shape (R,), float64, optional
        Every row's time, where the table's own column counts steps only.
    """
    check = _Checker(table, schema, source)
    check.columns()
    agent_ids, agent = check.labels(schema.agent)
    time = check.integers(schema.time)
    has_episode = schema.episode in table.column_names
    episode = check.integers(schema.episode) if has_episode else np.zeros(len(time), dtype=np.int64)

    order = np.lexsort((time, episode, agent))
    check.order, check.agents = order, (agent_ids, agent)
    agent, time, episode = agent[order], time[order], episode[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(agent) != 0) | (np.diff(episode) != 0)])
    offsets = np.r_[starts, len(agent)]
    last = np.zeros(len(agent), dtype=bool)
    last[offsets[1:] - 1] = True
    check.steps(time, last)
    check.lengths(starts, offsets)

    state = np.stack([check.numbers(name, np.zeros_like(last)) for name in schema.state], axis=1)
    delta = np.zeros(state.shape, dtype=np.float32)
    delta[:-1] = state[1:] - state[:-1]
    delta[last] = 0
    if schema.num_actions is None:
        columns = [check.numbers(name, last) for name in schema.action]
        action = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
    else:
        action = torch.from_numpy(check.discrete(schema.action[0], schema.num_actions, last))
    ended = np.zeros(len(starts), dtype=bool)
    if schema.terminated in table.column_names:
        ended = check.flags(schema.terminated, last)[offsets[1:] - 1]
    reward = None
    if schema.reward in table.column_names:
        reward = torch.from_numpy(check.numbers(schema.reward, last).astype(np.float32))
    return Trajectories(
        schema=schema,
        agent_ids=agent_ids,
        agent=torch.from_numpy(agent[starts].astype(np.int64)),
        offsets=torch.from_numpy(offsets.astype(np.int64)),
        state=torch.from_numpy(state.astype(np.float32)),
        action=action,
        delta=torch.from_numpy(delta),
        terminated=torch.from_numpy(ended),
        reward=reward,
        time=None if clock is None else torch.from_numpy(clock[order]),
    )


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


class _Checker:
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
