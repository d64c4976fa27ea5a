"""Show the progress of training."""

from __future__ import annotations

import sys
import time

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class EpochProgress(pl.Callback):
    """Show epochs and losses: a progress bar on a terminal, ten lines in total elsewhere (logs, CI).

    Lightning's progress bars count batches. Here an epoch is often a single batch, so they would only flicker.
    """

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()
        if trainer.is_global_zero and self._console.is_terminal:
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("epochs, loss {task.fields[loss]}"),
            )
            self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._progress.start()
            self._task = self._progress.add_task(
                "", total=trainer.max_epochs, loss="-", completed=trainer.current_epoch
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Reading the loss averages it over ranks, so every rank must read it.
        value = float(trainer.callback_metrics["train/loss"])
        if not trainer.is_global_zero:
            return
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 1
        loss = f"{value:.2e}"
        if self._progress is not None:
            self._progress.update(self._task, completed=done, loss=loss)
        elif done * 10 // total > (done - 1) * 10 // total:
            seconds = time.monotonic() - self._start
            print(f"epoch {done}/{total}: loss {loss}, {seconds:.0f} s", file=sys.stderr, flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")
