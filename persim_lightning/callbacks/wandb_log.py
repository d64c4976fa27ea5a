"""Sends tables and pictures to whatever W&B loggers a trainer has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import wandb
from pytorch_lightning.loggers import WandbLogger


def log_to_wandb(trainer: pl.Trainer, key: str, value: Any) -> None:
    """Log one wandb object (Table, Image) or number under `key`, on rank zero."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.log({key: value, "trainer/global_step": trainer.global_step})


def log_figure(trainer: pl.Trainer, key: str, path: Path) -> None:
    """Log a PNG under `key`."""
    log_to_wandb(trainer, key, wandb.Image(str(path)))
