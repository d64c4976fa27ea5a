"""Log scores of multi-step rollouts during and at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from persim_lightning.callbacks.wandb_log import log_figure, log_table
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.filtering import filtered
from persim_lightning.evaluation.horizon import HORIZONS, HorizonR2
from persim_lightning.evaluation.prediction import (
    EpisodeWindows,
    PredictionScores,
    predict,
)
from persim_lightning.evaluation.prediction_metric import score_share
from persim_lightning.store.names import FIGURES, PREDICTION, ROLLOUT_R2
from persim_lightning.support.files import write_json
from persim_lightning.training.persim import PerSimModule


class RolloutScores(pl.Callback):
    """Log R² at h = 1, 5, 10, 25, 50 per test agent during training, and the prediction protocol's table at the end.

    Ranks share the episodes without overlap. Without test trajectories, nothing is logged.

    Parameters
    ----------
    folder : Path
        Folder for `rollout_r2.json`, `prediction.json` and `figures/rollout_r2.png`.
    every_n_epochs : int
        Interval for logging R² during training.
    """

    def __init__(self, folder: Path, every_n_epochs: int) -> None:
        self._folder, self._every = folder, every_n_epochs
        self._history: list[dict[str, Any]] = []
        self.scores: PredictionScores | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"history": self._history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._history = state_dict["history"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if (trainer.current_epoch + 1) % self._every and not last:
            return
        test = self._test(trainer)
        if test is None:
            return
        values = self._horizon_r2(trainer, pl_module, test).tolist()
        self._history.append({"epoch": trainer.current_epoch + 1, "r2": values})
        metrics = {
            f"rollout_r2/agent_{label}/h{horizon}": value
            for label, row in zip(test.agent_ids, values, strict=True)
            for horizon, value in zip(HORIZONS, row, strict=True)
        }
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, step=trainer.global_step)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        test = self._test(trainer)
        if test is None:
            return
        assert isinstance(pl_module, PerSimModule)
        if test.observed is not None:
            test = filtered(pl_module.personalized_copy(), test)
        share = slice(trainer.global_rank, None, trainer.world_size)
        self.scores = score_share(pl_module.simulator, self._population_index(trainer, test), test, share)
        if trainer.is_global_zero:
            self._write(trainer, test, self.scores)

    def _test(self, trainer: pl.Trainer) -> Trajectories | None:
        test: Trajectories | None = trainer.datamodule.test_trajectories  # type: ignore[attr-defined]
        return test

    def _population_index(self, trainer: pl.Trainer, test: Trajectories) -> Tensor:
        """Return the index in the training population of every test agent."""
        index = {label: row for row, label in enumerate(trainer.datamodule.agent_ids)}  # type: ignore[attr-defined]
        return torch.tensor([index[label] for label in test.agent_ids])

    def _horizon_r2(self, trainer: pl.Trainer, pl_module: pl.LightningModule, test: Trajectories) -> Tensor:
        assert isinstance(pl_module, PerSimModule)
        episodes = torch.arange(test.num_trajectories)[trainer.global_rank :: trainer.world_size]
        windows = EpisodeWindows.cut(test).select(episodes).to(pl_module.device)
        agents = self._population_index(trainer, test).to(pl_module.device)[windows.agent]
        metric = HorizonR2(test.num_agents, test.schema.state_dim).to(pl_module.device)
        predicted = predict(pl_module.simulator, agents, windows)
        metric.update(windows.agent, predicted, windows.target, windows.steps, windows.observed)
        r2: Tensor = metric.compute()
        return r2.cpu()

    def _write(self, trainer: pl.Trainer, test: Trajectories, scores: PredictionScores) -> None:
        # Imported late: drawing needs matplotlib.
        from persim_lightning.callbacks.figures import draw_rollout_r2

        records = scores.to_records(test.agent_ids)
        write_json(records, self._folder / PREDICTION)
        write_json(
            {"horizons": HORIZONS, "agents": test.agent_ids, "history": self._history}, self._folder / ROLLOUT_R2
        )
        log_table(trainer, "prediction", list(records[0]), [list(record.values()) for record in records])
        if self._history:
            path = self._folder / FIGURES / "rollout_r2.png"
            log_figure(trainer, "figures/rollout_r2", draw_rollout_r2(HORIZONS, test.agent_ids, self._history, path))
