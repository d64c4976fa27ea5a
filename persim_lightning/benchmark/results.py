"""Reads the results of finished cells, and arranges them as tidy tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from persim_lightning.benchmark.grid import Cell
from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.data.collecting.collect import TrainingPaths, test_table
from persim_lightning.data.tables.sources import write_table
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.prediction import restore_score
from persim_lightning.store.names import RESULT, SETTINGS
from persim_lightning.store.work import ADVICE, check_settings
from persim_lightning.support.files import as_json, file_sha256, read_json

_COMMON = ("agents", "test_agents", "steps", "max_steps")
_COMMON_OF_ENVIRONMENT = ("planning", "configuration")
_PARTS = {"settings", "tables", "label", "episodes", "seconds", "agents", "predictions"}


@dataclass(frozen=True)
class CellResult:
    """Result of a finished cell.

    Attributes
    ----------
    environment, dataset, method, label : str
    seed : int
    episodes : int
        Number of episodes of each agent.
    agents : list
        Agent ids.
    returns : list of list of float
        By agent and episode; NaN where the environment overflowed.
    lengths : list of list of int
        Episode lengths, by agent and episode.
    rmse, r2 : list of float, or None
        By agent, for methods that predict: inf and -inf where a prediction diverged, NaN where no episode was scored.
    seconds : dict
        `fit`, `score` and `play`.
    """

    environment: str
    dataset: str
    method: str
    label: str
    seed: int
    episodes: int
    agents: list[int]
    returns: list[list[float]]
    lengths: list[list[int]]
    rmse: list[float] | None
    r2: list[float] | None
    seconds: dict[str, float]

    @classmethod
    def of(cls, record: dict[str, Any]) -> CellResult:
        """Convert the content of a result.json."""
        settings, agents, predictions = record["settings"], record["agents"], record["predictions"]
        return cls(
            **{name: settings[name] for name in ("environment", "dataset", "method", "seed")},
            label=record["label"],
            episodes=record["episodes"],
            agents=[agent["agent"] for agent in agents],
            returns=[[math.nan if value is None else value for value in agent["returns"]] for agent in agents],
            lengths=[agent["lengths"] for agent in agents],
            rmse=predictions and [restore_score(scores, "rmse") for scores in predictions],
            r2=predictions and [restore_score(scores, "r2") for scores in predictions],
            seconds=record["seconds"],
        )

    @property
    def mean_return(self) -> float:
        """Mean over agents and episodes; NaN without episodes."""
        values = [value for returns in self.returns for value in returns]
        return math.fsum(values) / len(values) if values else math.nan


def unfinished(cells: Sequence[Cell], runs: Path, data: Path, without_data: Sequence[str] = ()) -> list[Cell]:
    """Select the cells that have not finished.

    Parameters
    ----------
    cells : sequence of Cell
    runs, data : Path
        Folders of results and of data sets.
    without_data : sequence of str
        Methods that do not learn from a data set: finished on one, they do not run on another.

    Raises
    ------
    ConfigurationError
        If the folder holds damaged files, or cells under other settings or on other tables.
    """
    requested = {cell.environment: as_json(cell.settings()) for cell in cells}
    known, elsewhere = {}, {}
    for record in read_results(runs):
        settings = record["settings"]
        _check_comparable(settings, requested, runs)
        key = settings["environment"], settings["seed"], settings["method"]
        known[settings["dataset"], *key] = record
        if settings["method"] in without_data:
            elsewhere[key] = record
    open_cells = []
    hashes: dict[Path, str] = {}
    for cell in cells:
        key = cell.environment, cell.seed, cell.method
        finished = known.get((cell.dataset, *key), elsewhere.get(key))
        if finished is not None:
            same = replace(cell, dataset=finished["settings"]["dataset"])
            check_settings(finished["settings"], as_json(same.settings()), runs / same.folder)
            _check_tables(same, finished["tables"], runs / same.folder, data, hashes)
            continue
        folder = runs / cell.folder
        if (folder / SETTINGS).is_file():
            saved = _read_record(folder / SETTINGS, {"tables"})
            tables = saved.pop("tables")
            check_settings(saved, as_json(cell.fit_settings()), folder)
            _check_tables(cell, tables, folder, data, hashes)
        open_cells.append(cell)
    return open_cells


def _check_comparable(saved: dict[str, Any], requested: dict[str, dict[str, Any]], runs: Path) -> None:
    """Refuse to mix cells whose results cannot be compared with a finished cell's.

    `saved` holds the finished cell's settings, `requested` those of any new cell, by environment.
    """
    for environment, settings in requested.items():
        names = _COMMON + (_COMMON_OF_ENVIRONMENT if environment == saved["environment"] else ())
        for name in names:
            if settings[name] != saved[name]:
                cell = f"{saved['environment']} {saved['dataset']} {saved['method']}"
                values = f" ({saved[name]}, now {settings[name]})" if name in _COMMON else ""
                raise ConfigurationError(f"{runs} holds {cell} with other {name}{values}: {ADVICE}")


def _check_tables(cell: Cell, tables: dict[str, str], folder: Path, data: Path, hashes: dict[Path, str]) -> None:
    """Refuse a cell if one of its tables has changed; a missing one can be collected again."""
    paths = {
        "sha256": TrainingPaths.of(data, cell.environment, cell.dataset, cell.agents, cell.seed).table,
        "test_sha256": test_table(data, cell.environment, cell.seed),
    }
    for name, path in paths.items():
        if not path.is_file():
            continue
        if path not in hashes:
            hashes[path] = file_sha256(path)
        if hashes[path] != tables[name]:
            raise ConfigurationError(
                f"{path} has changed since {folder} was run on it: restore it, remove {folder}, or {ADVICE}"
            )


def read_results(runs: Path) -> list[dict[str, Any]]:
    """Read the result.json of all finished cells in a folder.

    Raises
    ------
    ConfigurationError
        If one of them is damaged.
    """
    return [_read_record(path, _PARTS) for path in sorted(runs.glob(f"*/cells/*/{RESULT}"))]


def _read_record(path: Path, parts: set[str]) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict) or not parts <= set(record):
        raise ConfigurationError(f"{path} is damaged: remove {path.parent} to run it again")
    return record


def sort_results(records: Sequence[dict[str, Any]], order: Sequence[str]) -> list[CellResult]:
    """Sort what :func:`read_results` gives, with methods in the given order and others after them."""
    methods = {name: index for index, name in enumerate(order)}

    def key(result: CellResult) -> tuple[int, int, int, str, int]:
        environment, dataset = list(ENVIRONMENTS).index(result.environment), list(DATASETS).index(result.dataset)
        return environment, dataset, methods.get(result.method, len(methods)), result.method, result.seed

    return sorted((CellResult.of(record) for record in records), key=key)


_KEYS = {
    **{name: pa.string() for name in ("environment", "dataset", "method", "label")},
    **{name: pa.int64() for name in ("seed", "agent")},
}


def returns_table(results: Iterable[CellResult]) -> pa.Table:
    """Make a table with a row for every episode."""
    rows = [
        {**_keys(result, agent), "episode": episode, "return": value, "length": length}
        for result in results
        for agent, returns, lengths in zip(result.agents, result.returns, result.lengths, strict=True)
        for episode, (value, length) in enumerate(zip(returns, lengths, strict=True))
    ]
    columns = {**_KEYS, "episode": pa.int64(), "return": pa.float64(), "length": pa.int64()}
    return pa.Table.from_pylist(rows, schema=pa.schema(columns))


def predictions_table(results: Iterable[CellResult]) -> pa.Table:
    """Make a table with a row for every agent of a method that predicts."""
    rows = [
        {**_keys(result, agent), "rmse": rmse, "r2": r2}
        for result in results
        if result.rmse is not None and result.r2 is not None
        for agent, rmse, r2 in zip(result.agents, result.rmse, result.r2, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema({**_KEYS, "rmse": pa.float64(), "r2": pa.float64()}))


def _keys(result: CellResult, agent: int) -> dict[str, Any]:
    return {**{name: getattr(result, name) for name in _KEYS if name != "agent"}, "agent": agent}


def write_tidy(results: Sequence[CellResult], runs: Path) -> list[Path]:
    """Write results.parquet and predictions.parquet, each whole or not at all."""
    tables = {"results": returns_table(results), "predictions": predictions_table(results)}
    paths = [runs / f"{name}.parquet" for name in tables]
    for table, path in zip(tables.values(), paths, strict=True):
        write_table(table, path)
    return paths
