"""Save the trained simulators before anything is scored or drawn."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from persim_lightning.training.persim import PerSimModule


class SaveSimulator(pl.Callback):
    """Save the finished ensemble, so that later errors do not lose it.

    Must come after FinishEnsemble and before callbacks that score.

    Parameters
    ----------
    folder : Path
        Folder for `simulator.safetensors` and `simulator.json`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PerSimModule)
        if trainer.is_global_zero:
            pl_module.personalized().save(self._folder)
