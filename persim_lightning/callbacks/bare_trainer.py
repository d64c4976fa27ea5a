"""A Trainer that trains and does little else."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from persim_lightning.callbacks.finish import FinishEnsemble
from persim_lightning.callbacks.progress import EpochProgress
from persim_lightning.training.checkpoint_io import AtomicCheckpointIO

_CHECKPOINTS = 20


def bare_trainer(progress: bool = True, checkpoints: Path | None = None, **options: Any) -> pl.Trainer:
    """One process, no loggers, scores or validation.

    Parameters
    ----------
    progress : bool
        Show epochs and losses.
    checkpoints : Path, optional
        Folder for `last.ckpt`, written some twenty times on the way; none is written where not given.
    **options
        Further options of the Trainer, such as `max_epochs`.
    """
    callbacks: list[pl.Callback] = [FinishEnsemble()]
    if progress:
        callbacks.append(EpochProgress())
    if checkpoints is not None:
        every = max(1, options["max_epochs"] // _CHECKPOINTS)
        callbacks.append(
            ModelCheckpoint(
                dirpath=checkpoints,
                filename="last",
                enable_version_counter=False,
                every_n_epochs=every,
                save_on_train_epoch_end=True,
            )
        )
    return pl.Trainer(
        **options,
        devices=1,
        logger=False,
        enable_checkpointing=checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning's notes on hardware and loaders are not for people who fit a table or compare methods."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
