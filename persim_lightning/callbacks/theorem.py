"""Checks the low-rank theorem on the trained ensemble."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import wandb

from persim_lightning.callbacks.wandb_log import log_figure, log_to_wandb
from persim_lightning.theory.check import AgentFacts, TheoremCheck, check_theorem
from persim_lightning.theory.report import write_check
from persim_lightning.theory.summary import summary
from persim_lightning.training.persim import PerSimModule


class LowRankCheck(pl.Callback):
    """Compares the trained factors with the true dynamics tensor when training ends.

    Parameters
    ----------
    folder : Path
        Receives what :func:`~persim_lightning.theory.report.write_check` writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.check: TheoremCheck | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, PerSimModule)
        data = pl_module.datamodule
        names, covariates = data.covariates
        facts = AgentFacts(names, covariates) if names else None
        self.check = check_theorem(
            self._folder.name, pl_module.personalized(), data.trajectories, data.environment, facts
        )
        for path in write_check(self.check, self._folder):
            if path.suffix == ".png":
                log_figure(trainer, f"figures/{path.stem}", path)
        log_to_wandb(trainer, "theorem/summary", wandb.Html(f"<p>{summary(self.check)}</p>"))
        if self.check.truth is not None:
            curve = self.check.truth.merged
            columns: list[str | int] = ["rank", "cp_error", "tucker_error", "core_consistency", "converged"]
            rows = zip(curve.ranks, curve.cp, curve.tucker, curve.core_consistency, curve.converged, strict=True)
            log_to_wandb(trainer, "theorem/rank_curve", wandb.Table(columns=columns, data=[list(row) for row in rows]))
        learned = self.check.learned
        if learned is not None and learned.covariates is not None:
            for name, value in learned.covariates.quadratic.items():
                log_to_wandb(trainer, f"theorem/recovered_r2/{name}", value)
