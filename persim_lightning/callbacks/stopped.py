"""Save a checkpoint when training stops before its last epoch, for example by `--trainer.max_time`."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl


class SaveWhenStopped(pl.Callback):
    """Save the checkpoint from which a run resumes that was stopped at the end of an epoch.

    Must come before FinishEnsemble, which changes the module.

    Parameters
    ----------
    path : Path
        Checkpoint of the run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert trainer.max_epochs is not None
        if trainer.current_epoch < trainer.max_epochs:
            trainer.save_checkpoint(self._path)
