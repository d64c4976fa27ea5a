"""Trains the networks of a method for a number of gradient steps, and goes on after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
import torch

from persim_lightning.callbacks.bare_trainer import bare_trainer, quiet
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.errors import FitInterruptedError

Module = TypeVar("Module", bound=pl.LightningModule)


def train(build: Callable[[], Module], data: TrajectoryDataModule, steps: int, seed: int, folder: Path) -> Module:
    """Build and train a module; a training that was interrupted in `folder` goes on.

    Parameters
    ----------
    build : callable, () -> LightningModule
    data : TrajectoryDataModule
    steps : int
        Gradient steps, rounded to whole epochs.
    seed : int
        Of initial weights and of the order of batches; the caller's generator is left as it was.
    folder : Path
        Keeps checkpoints until the training has ended.

    Raises
    ------
    FitInterruptedError
    """
    data.check(world_size=1)
    checkpoints = folder / "checkpoints"
    last = checkpoints / "last.ckpt"
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        module = build()
        epochs = max(1, round(steps / data.steps_per_epoch))
        trainer = bare_trainer(False, checkpoints, accelerator="cpu", max_epochs=epochs)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SystemExit as error:
            # What Lightning makes of Ctrl-C.
            raise FitInterruptedError("interrupted: the same command goes on") from error
    shutil.rmtree(checkpoints)
    return module
