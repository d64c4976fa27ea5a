"""What follows gradient training, before anything is scored or saved."""

from __future__ import annotations

import pytorch_lightning as pl

from persim_lightning.training.persim import PerSimModule


class FinishEnsemble(pl.Callback):
    """Calls :meth:`PerSimModule.finish`, where that is what has been trained; must stand before callbacks that score.

    The result is a function of the last checkpoint and the data, so a run that is resumed after its last epoch ends in
    the same weights.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, PerSimModule):
            pl_module.finish()
