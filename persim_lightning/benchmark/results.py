"""What finished cells came to: read from their result.json, and laid out as tidy tables."""

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
from persim_lightning.methods.training import ADVICE
from persim_lightning.store.names import RESULT, SETTINGS
from persim_lightning.store.work import check_settings
from persim_lightning.support.files import file_sha256, read_json

_COMMON = ("agents", "test_agents", "steps", "max_steps")
_COMMON_OF_ENVIRONMENT = ("planning", "configuration")
_PARTS = {"asked", "tables", "label", "episodes", "seconds", "agents", "predictions"}


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes
    ----------
    environment, dataset, method, label : str
    seed : int
    episodes : int
        Episodes of each agent.
    agents : list
        Ids.
    returns : list of list of float
        By agent and episode; NaN where the environment left its numbers.
    lengths : list of list of int
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
        """From what result.json holds."""
        asked, predictions = record["asked"], record["predictions"]
        records = record["agents"]
        return cls(
            **{name: asked[name] for name in ("environment", "dataset", "method", "seed")},
            label=record["label"],
            episodes=record["episodes"],
            agents=[own["agent"] for own in records],
            returns=[[math.nan if value is None else value for value in own["returns"]] for own in records],
            lengths=[own["lengths"] for own in records],
            rmse=predictions and [_score(own, "rmse", math.inf) for own in predictions],
            r2=predictions and [_score(own, "r2", -math.inf) for own in predictions],
            seconds=record["seconds"],
        )

    @property
    def mean_return(self) -> float:
        """Over agents and episodes; NaN where none was played."""
        values = [value for own in self.returns for value in own]
        return math.fsum(values) / len(values) if values else math.nan


def _score(record: dict[str, Any], name: str, diverged: float) -> float:
    """JSON has no infinities: null is one where episodes were scored."""
    value = record[name]
    if value is None:
        return diverged if record["scored"] else math.nan
    return float(value)


def unfinished(cells: Sequence[Cell], runs: Path, data: Path, without_data: Sequence[str] = ()) -> list[Cell]:
    """Cells that are still to be run.

    Parameters
    ----------
    cells : sequence of Cell
    runs, data : Path
        Folders of results and of data sets.
    without_data : sequence of str
        Methods for which one data set is as good as another: finished on one, they are not run on the next.

    Raises
    ------
    ConfigurationError
        If the folder holds cells under other settings, on other tables, or damaged files.
    """
    wanted = {cell.environment: cell.asked() for cell in cells}
    known, elsewhere = {}, {}
    for record in read_results(runs):
        asked = record["asked"]
        _check_comparable(asked, wanted, runs)
        key = asked["environment"], asked["seed"], asked["method"]
        known[asked["dataset"], *key] = record
        if asked["method"] in without_data:
            elsewhere[key] = record
    open_cells = []
    hashes: dict[Path, str] = {}
    for cell in cells:
        key = cell.environment, cell.seed, cell.method
        finished = known.get((cell.dataset, *key), elsewhere.get(key))
        if finished is not None:
            there = replace(cell, dataset=finished["asked"]["dataset"])
            check_settings(finished["asked"], there.asked(), runs / there.folder, ADVICE)
            _check_tables(there, finished["tables"], runs / there.folder, data, hashes)
            continue
        folder = runs / cell.folder
        settings = folder / SETTINGS
        if settings.is_file():
            saved = _read_record(settings, {"tables"})
            tables = saved.pop("tables")
            check_settings(saved, cell.asked_of_fit(), folder, ADVICE)
            _check_tables(cell, tables, folder, data, hashes)
        open_cells.append(cell)
    return open_cells


def _check_comparable(asked: dict[str, Any], wanted: dict[str, dict[str, Any]], runs: Path) -> None:
    """Refuse to put cells beside a finished one that they could not be compared with; those of an environment agree."""
    for environment, own in wanted.items():
        names = _COMMON + (_COMMON_OF_ENVIRONMENT if environment == asked["environment"] else ())
        for name in names:
            if own[name] != asked[name]:
                words = f"{runs} holds {asked['environment']} {asked['dataset']} {asked['method']} with other {name}"
                values = f" ({asked[name]}, now {own[name]})" if name in _COMMON else ""
                raise ConfigurationError(f"{words}{values}: {ADVICE}")


def _check_tables(cell: Cell, tables: dict[str, str], folder: Path, data: Path, hashes: dict[Path, str]) -> None:
    """Refuse a cell one of whose tables has changed since; one that has gone can be made again."""
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
                f"{path} has changed since {folder} was run on it: bring it back, remove {folder}, or choose another "
                "--runs"
            )


def read_results(runs: Path) -> list[dict[str, Any]]:
    """What all finished cells of a folder hold.

    Raises
    ------
    ConfigurationError
        If one of them is damaged.
    """
    return [_read_record(path, _PARTS) for path in sorted(runs.glob(f"*/cells/*/{RESULT}"))]


def _read_record(path: Path, parts: set[str]) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict) or not parts <= set(record):
        raise ConfigurationError(f"{path}: damaged; remove {path.parent} to run it anew")
    return record


def sort_results(records: Sequence[dict[str, Any]], order: Sequence[str]) -> list[CellResult]:
    """What :func:`read_results` gives, with methods in the given order, others behind them."""
    methods = {name: place for place, name in enumerate(order)}

    def place(result: CellResult) -> tuple[int, int, int, str, int]:
        environment, dataset = list(ENVIRONMENTS).index(result.environment), list(DATASETS).index(result.dataset)
        return environment, dataset, methods.get(result.method, len(methods)), result.method, result.seed

    return sorted((CellResult.of(record) for record in records), key=place)


_KEYS = {
    **{name: pa.string() for name in ("environment", "dataset", "method", "label")},
    **{name: pa.int64() for name in ("seed", "agent")},
}


def returns_table(results: Iterable[CellResult]) -> pa.Table:
    """A row for every episode."""
    rows = [
        {**_keys(result, agent), "episode": episode, "return": value, "length": length}
        for result in results
        for agent, own, lengths in zip(result.agents, result.returns, result.lengths, strict=True)
        for episode, (value, length) in enumerate(zip(own, lengths, strict=True))
    ]
    columns = {**_KEYS, "episode": pa.int64(), "return": pa.float64(), "length": pa.int64()}
    return pa.Table.from_pylist(rows, schema=pa.schema(columns))


def predictions_table(results: Iterable[CellResult]) -> pa.Table:
    """A row for every agent of a method that predicts."""
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
