"""Calibrate intervals when a fit ends, and then use the held-out rows for agents' factors."""

from __future__ import annotations

import pytorch_lightning as pl

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.evaluation.held_out import calibrate_and_refit
from persim_lightning.training.persim import PerSimModule


class CalibrateIntervals(pl.Callback):
    """Calibrate intervals on held-out tails; then compute the factors of a user's agents from all rows.

    The factors of an environment's agents stay, so that its scores are those of the paper's protocol. Must come after
    FinishEnsemble and before callbacks that score or draw. Every rank does the same.

    Attributes
    ----------
    calibration : Calibration or None
        None before the fit has ended, and where no trajectory is long enough.
    """

    def __init__(self) -> None:
        self.calibration: Calibration | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PerSimModule)
        data, population = pl_module.datamodule, pl_module.personalized_copy()
        self.calibration = calibrate_and_refit(
            population, data.trajectories, data.val_fraction, refit=data.environment is None
        )
        pl_module.simulator.agent_encoder.deviation.data.copy_(population.simulator.agent_encoder.deviation)
