"""A Trainer that trains an ensemble and does nothing else."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from persim_lightning.callbacks.finish import FinishEnsemble
from persim_lightning.callbacks.progress import EpochProgress


def bare_trainer(progress: bool = True, **options: Any) -> pl.Trainer:
    """One process, no loggers, checkpoints, scores or validation.

    Parameters
    ----------
    progress : bool
        Show epochs and losses.
    **options
        Further options of the Trainer, such as `max_epochs`.
    """
    return pl.Trainer(
        **options,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[FinishEnsemble(), *([EpochProgress()] if progress else [])],
    )
