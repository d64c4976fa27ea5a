"""A minimal Trainer, for fits without a run folder."""

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
from persim_lightning.store.names import LAST_CHECKPOINT
from persim_lightning.training.checkpoint_io import AtomicCheckpointIO

# Approximate number of times that `last.ckpt` is written during training.
_CHECKPOINTS = 20


def bare_trainer(progress: bool = True, checkpoints: Path | None = None, **options: Any) -> pl.Trainer:
    """Create a Trainer for one process, without loggers, scores or validation.

    Parameters
    ----------
    progress : bool
        Show epochs and losses.
    checkpoints : Path, optional
        Folder for `last.ckpt`, which is written about twenty times during training. Without a folder, no checkpoints
        are written.
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
                filename=LAST_CHECKPOINT,
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
    """Hide Lightning's messages on hardware and data loaders, which do not help users of the Python API."""
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
