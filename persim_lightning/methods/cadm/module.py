"""Trains CaDM with Lightning (Lee et al., 2020; https://arxiv.org/abs/2005.06800)."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from persim_lightning.data.batches import Gather
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.data.windows import WindowGather, Windows
from persim_lightning.methods.cadm.context_model import ContextModel
from persim_lightning.training.chunks import one_cycle_adam, train_on_chunk

_CLIP_NORM = 100.0


class BootstrapGather:
    """Replaces the requested rows by a bootstrap sample for every member, drawn with replacement.

    Parameters
    ----------
    gather : Gather
    rows : Tensor, shape (T,), int64
        All rows.
    members : int
    seed : int
    """

    def __init__(self, gather: Gather, rows: Tensor, members: int, seed: int) -> None:
        self._gather, self.rows_each = gather, gather.rows_each
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(rows), (members, len(rows)), generator=generator).to(rows.device)
        self._instead = rows.new_zeros(members, int(rows.max()) + 1)
        self._instead[:, rows] = rows[drawn]
        self._member = torch.arange(members, device=rows.device)[:, None]

    def __call__(self, rows: Tensor) -> Windows:
        """Rows (K, M, B) -> windows (K, M, B, …)."""
        windows: Windows = self._gather(self._instead[self._member, rows])
        return windows


class CaDMModule(pl.LightningModule):
    """Trains CaDM with one-step losses over future steps that share a context, forward and backward.

    Parameters
    ----------
    model : ContextModel
    past, future : int
        K, number of transitions that a context is encoded from, and number of steps predicted under it.
    backward_weight : float
        β of the backward dynamics' loss.
    bootstrap : bool
        Whether every member is trained on a bootstrap sample.
    learning_rate : float
        Peak of the one-cycle schedule.
    """

    def __init__(
        self,
        model: ContextModel,
        past: int,
        future: int,
        backward_weight: float,
        bootstrap: bool,
        learning_rate: float,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.members = model, model.members
        self._past, self._future, self._backward_weight = past, future, backward_weight
        self._bootstrap, self._learning_rate = bootstrap, learning_rate

    @property
    def datamodule(self) -> TrajectoryDataModule:
        datamodule: TrajectoryDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return datamodule

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.model.scales.set(self.datamodule.statistics)
            if self.model.walls.enabled:
                self.model.walls.set(self.datamodule.trajectories.walls())

    def gather(self, trajectories: Trajectories, rows: Tensor, training: bool) -> Gather:
        """Return the function that builds batches: windows whose target steps are among `rows`."""
        gather = WindowGather(trajectories, rows, self._past, self._future)
        if not (training and self._bootstrap):
            return gather
        return BootstrapGather(gather, rows, self.members, torch.initial_seed() % 2**40)

    def loss(self, windows: Windows) -> Tensor:
        """Compute the loss of every member: windows (M, B, …) -> (M,)."""
        return self.model.loss(windows, self._backward_weight)

    def training_step(self, chunk: Windows, batch_idx: int) -> None:
        train_on_chunk(self, chunk, self.loss, _CLIP_NORM * self.members)

    def validation_step(self, windows: Windows, batch_idx: int) -> None:
        """Log the loss on the tails of the trajectories."""
        loss = self.loss(windows).mean()
        self.log("val/loss", loss, on_epoch=True, batch_size=windows.state.shape[1], sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.trainer.max_epochs is not None
        steps = self.trainer.max_epochs * self.datamodule.steps_per_epoch
        optimizer, scheduler = one_cycle_adam(self.parameters(), self._learning_rate, steps)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
