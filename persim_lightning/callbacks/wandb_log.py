"""Log values, tables and figures to the W&B loggers of a trainer. Without such loggers, W&B is never imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger


def log_value(trainer: pl.Trainer, key: str, value: float | None) -> None:
    """Log a number under `key`, on rank zero."""
    _log(trainer, key, lambda: value)


def log_table(trainer: pl.Trainer, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Log a table under `key`, on rank zero."""
    _log(trainer, key, lambda: _wandb().Table(columns=list(columns), data=[list(row) for row in rows]))


def log_text(trainer: pl.Trainer, key: str, text: str) -> None:
    """Log a paragraph under `key`, on rank zero."""
    _log(trainer, key, lambda: _wandb().Html(f"<p>{text}</p>"))


def log_figure(trainer: pl.Trainer, key: str, path: Path) -> None:
    """Log a PNG under `key`, on rank zero."""
    _log(trainer, key, lambda: _wandb().Image(str(path)))


def _log(trainer: pl.Trainer, key: str, value: Callable[[], Any]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.log({key: value(), "trainer/global_step": trainer.global_step})


def _wandb() -> Any:
    # Imported late: it takes half a second, and most commands never log.
    import wandb

    return wandb
