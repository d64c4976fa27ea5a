"""Trains the networks of a method for a number of gradient steps; resumes interrupted training."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
import torch

from persim_lightning.callbacks.bare_trainer import bare_trainer, quiet
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.errors import FitInterruptedError
from persim_lightning.methods.contract import Task
from persim_lightning.store.names import last_checkpoint

Module = TypeVar("Module", bound=pl.LightningModule)


def train(build: Callable[[], Module], data: TrajectoryDataModule, task: Task, folder: Path) -> Module:
    """Build and train a module for a task's gradient steps, or resume training that was interrupted in `folder`.

    Parameters
    ----------
    build : callable, () -> LightningModule
    data : TrajectoryDataModule
    task : Task
        Its steps are rounded up to whole epochs; its seed determines initial weights and the order of batches. The
        global generator is restored.
    folder : Path
        Holds checkpoints until training ends. The caller must open it as
        :class:`~persim_lightning.store.work.Work`, so that a checkpoint of other settings is never resumed.

    Raises
    ------
    FitInterruptedError
    """
    data.check(world_size=1)
    last = last_checkpoint(folder)
    # Lightning ignores SIGINT once it has seen one.
    handler = signal.getsignal(signal.SIGINT)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(task.seed)
        module = build()
        epochs = -(-task.steps // data.steps_per_epoch)
        trainer = bare_trainer(False, last.parent, accelerator="cpu", max_epochs=epochs)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SystemExit as error:
            # Lightning turns Ctrl-C into SystemExit.
            signal.signal(signal.SIGINT, handler)
            raise FitInterruptedError("interrupted: the same command resumes") from error
    shutil.rmtree(last.parent)
    return module
