"""Trains the networks of a method for a number of gradient steps, and goes on after an interruption."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch

from persim_lightning.callbacks.bare_trainer import bare_trainer, quiet
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.errors import FitInterruptedError
from persim_lightning.methods.contract import Task

Module = TypeVar("Module", bound=pl.LightningModule)


def train(
    build: Callable[[], Module], data: TrajectoryDataModule, task: Task, folder: Path, settings: dict[str, Any]
) -> Module:
    """Build and train a module for a task's gradient steps; a training that was interrupted in `folder` goes on.

    Parameters
    ----------
    build : callable, () -> LightningModule
    data : TrajectoryDataModule
    task : Task
        Its steps are rounded up to whole epochs; its seed decides initial weights and the order of batches. The
        caller's generator is left as it was.
    folder : Path
        Keeps checkpoints until the training has ended.
    settings : dict
        What else decides the result, ready for JSON: only a training under the same settings goes on.

    Raises
    ------
    FitInterruptedError
    """
    data.check(world_size=1)
    asked = json.dumps({**task.identity(), "settings": settings}, sort_keys=True, default=int)
    checkpoints = folder / f"checkpoints-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    last = checkpoints / "last.ckpt"
    # Lightning has SIGINT ignored once it has seen one.
    handler = signal.getsignal(signal.SIGINT)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(task.seed)
        module = build()
        epochs = -(-task.steps // data.steps_per_epoch)
        trainer = bare_trainer(False, checkpoints, accelerator="cpu", max_epochs=epochs)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SystemExit as error:
            # What Lightning makes of Ctrl-C.
            signal.signal(signal.SIGINT, handler)
            raise FitInterruptedError("interrupted: the same command goes on") from error
    shutil.rmtree(checkpoints)
    return module
