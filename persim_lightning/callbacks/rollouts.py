"""Multi-step rollout scores during and at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytorch_lightning as pl
import torch
import wandb
from torch import Tensor

from persim_lightning.callbacks.wandb_log import log_figure, log_to_wandb
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.horizon import HORIZONS, HorizonR2
from persim_lightning.evaluation.prediction import (
    EpisodeWindows,
    PredictionScores,
    predict,
)
from persim_lightning.evaluation.prediction_metric import score_share
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import write_json
from persim_lightning.training.persim import PerSimModule


class RolloutScores(pl.Callback):
    """Logs R² at h = 1, 5, 10, 25, 50 per test agent, and the prediction protocol's table at the end.

    Every rank rolls out episodes of its own; nothing is counted twice. Without test trajectories it does nothing.

    Parameters
    ----------
    folder : Path
        Receives `rollout_r2.json`, `prediction.json` and `figures/rollout_r2.png`.
    every_n_epochs : int
        How often R² is logged during training.
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
        share = slice(trainer.global_rank, None, trainer.world_size)
        self.scores = score_share(pl_module.simulator, self._population_index(trainer, test), test, share)
        if trainer.is_global_zero:
            self._write(trainer, test, self.scores)

    def _test(self, trainer: pl.Trainer) -> Trajectories | None:
        test: Trajectories | None = trainer.datamodule.test_trajectories  # type: ignore[attr-defined]
        return test

    def _population_index(self, trainer: pl.Trainer, test: Trajectories) -> Tensor:
        """Index in the training population of every agent of the test table."""
        index = {label: row for row, label in enumerate(trainer.datamodule.agent_ids)}  # type: ignore[attr-defined]
        return torch.tensor([index[label] for label in test.agent_ids])

    def _horizon_r2(self, trainer: pl.Trainer, pl_module: pl.LightningModule, test: Trajectories) -> Tensor:
        assert isinstance(pl_module, PerSimModule)
        episodes = torch.arange(test.num_trajectories)[trainer.global_rank :: trainer.world_size]
        windows = EpisodeWindows.cut(test).select(episodes).to(pl_module.device)
        agents = self._population_index(trainer, test).to(pl_module.device)[windows.agent]
        metric = HorizonR2(test.num_agents, test.schema.state_dim).to(pl_module.device)
        metric.update(windows.agent, predict(pl_module.simulator, agents, windows), windows.target, windows.steps)
        r2: Tensor = metric.compute()
        return r2.cpu()

    def _write(self, trainer: pl.Trainer, test: Trajectories, scores: PredictionScores) -> None:
        records = scores.to_records(test.agent_ids)
        write_json(records, self._folder / "prediction.json")
        write_json(
            {"horizons": HORIZONS, "agents": test.agent_ids, "history": self._history}, self._folder / "rollout_r2.json"
        )
        columns: list[str | int] = list(records[0])
        rows = [list(record.values()) for record in records]
        log_to_wandb(trainer, "prediction", wandb.Table(columns=columns, data=rows))
        if self._history:
            log_figure(trainer, "figures/rollout_r2", self._draw(test))

    def _draw(self, test: Trajectories) -> Path:
        """One line per test agent: R² against horizon at the end (left) and at the longest one over epochs (right)."""
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
        final = torch.tensor(self._history[-1]["r2"])
        longest = torch.tensor([entry["r2"] for entry in self._history])[..., -1]
        epochs = [entry["epoch"] for entry in self._history]
        for row, label in enumerate(test.agent_ids):
            left.plot(HORIZONS, final[row].clamp(min=-1), marker="o", label=f"agent {label}")
            right.plot(epochs, longest[:, row].clamp(min=-1), marker=".")
        left.set(xlabel="steps ahead", ylabel="R² over episodes (cut at -1)", title="after the last epoch")
        right.set(xlabel="epoch", title=f"{HORIZONS[-1]} steps ahead, during training")
        for axes in (left, right):
            axes.set_ylim(-1.05, 1.05)
            axes.grid(alpha=0.3)
        left.legend()
        return save_figure(figure, self._folder / "figures" / "rollout_r2.png")
