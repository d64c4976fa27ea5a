"""Check the low-rank theorem on the trained ensemble."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from persim_lightning.callbacks.wandb_log import log_figure, log_table, log_text, log_value
from persim_lightning.theory.report import write_check
from persim_lightning.theory.results import AgentCovariates, TheoremCheck
from persim_lightning.theory.summary import summary
from persim_lightning.training.persim import PerSimModule


class LowRankCheck(pl.Callback):
    """Compare the trained factors with the true dynamics tensor at the end of training.

    Parameters
    ----------
    folder : Path
        Folder for the files of :func:`~persim_lightning.theory.report.write_check`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.check: TheoremCheck | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        # Imported late: it needs scikit-learn.
        from persim_lightning.theory.check import check_theorem

        assert isinstance(pl_module, PerSimModule)
        data = pl_module.datamodule
        names, values = data.covariates
        covariates = AgentCovariates(names, values) if names else None
        self.check = check_theorem(
            self._folder.name, pl_module.personalized(), data.trajectories, data.environment, covariates
        )
        for path in write_check(self.check, self._folder):
            if path.suffix == ".png":
                log_figure(trainer, f"figures/{path.stem}", path)
        log_text(trainer, "theorem/summary", summary(self.check))
        if self.check.truth is not None:
            curve = self.check.truth.merged
            columns = ["rank", "cp_error", "tucker_error", "core_consistency", "converged"]
            rows = zip(curve.ranks, curve.cp, curve.tucker, curve.core_consistency, curve.converged, strict=True)
            log_table(trainer, "theorem/rank_curve", columns, list(rows))
        learned = self.check.learned
        if learned is not None and learned.covariates is not None:
            for name, value in learned.covariates.quadratic.items():
                log_value(trainer, f"theorem/recovered_r2/{name}", value)
