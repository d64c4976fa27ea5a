"""Finish the ensemble after gradient training, before it is scored or saved."""

from __future__ import annotations

import pytorch_lightning as pl

from persim_lightning.training.persim import PerSimModule


class FinishEnsemble(pl.Callback):
    """Call :meth:`PerSimModule.finish` if a PerSimModule was trained. Must come before callbacks that score or save.

    The result depends only on the last checkpoint and the data: a run that is resumed after its last epoch gets the
    same weights.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, PerSimModule):
            pl_module.finish()
