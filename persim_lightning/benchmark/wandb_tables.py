"""Logs the benchmark's tidy tables to Weights & Biases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from persim_lightning.benchmark.results import CellResult, predictions_table, returns_table
from persim_lightning.support.wandb import PROJECT, wandb_settings


def log_tables(results: Sequence[CellResult], summary: dict[str, Any], runs: Path, mode: str) -> None:
    """Log a run with the tables `returns` and `predictions`, and the summary's counts.

    Parameters
    ----------
    results : sequence of CellResult
    summary : dict
    runs : Path
        Folder of the benchmark, in which W&B creates its folder.
    mode : {'online', 'offline', 'disabled'}
    """
    if mode == "disabled":
        return
    # Imported late, since it takes a second.
    import wandb

    run = wandb.init(project=PROJECT, name=runs.name, group="benchmark", dir=runs, settings=wandb_settings(mode))
    tables = {"returns": returns_table(results), "predictions": predictions_table(results)}
    run.log({name: _wandb_table(table) for name, table in tables.items()})
    run.summary.update(dict(_flat(summary)))
    run.finish()


def _wandb_table(table: pa.Table) -> Any:
    import wandb

    rows = [
        [None if isinstance(value, float) and not math.isfinite(value) else value for value in row.values()]
        for row in table.to_pylist()
    ]
    return wandb.Table(columns=table.column_names, data=rows)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value
