"""Optimizer steps over a chunk of batches, as every module of the package takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from persim_lightning.errors import PersimError


def train_on_chunk(module: pl.LightningModule, chunk: Any, loss: Callable[[Any], Tensor], clip_norm: float) -> None:
    """K optimizer steps, one after the other: Lightning's work around a step costs more than a small one's mathematics.

    Logs the mean loss as `train/loss`.

    Parameters
    ----------
    module : LightningModule
        With manual optimization, one optimizer and one scheduler.
    chunk : NamedTuple of Tensor, shapes (K, M, B, …)
    loss : callable, (batch of shapes (M, B, …)) -> (M,)
        Of every member.
    clip_norm : float
        Largest norm of the gradient of the summed loss.

    Raises
    ------
    PersimError
        If training diverges.
    """
    optimizer, scheduler = module.optimizers(), module.lr_schedulers()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    losses = []
    for batch in zip(*(part.unbind(0) for part in chunk), strict=True):
        value = loss(type(chunk)(*batch))
        optimizer.zero_grad()  # type: ignore[union-attr]
        module.manual_backward(value.sum())
        clip_grad_norm_(parameters, clip_norm)
        optimizer.step()  # type: ignore[union-attr]
        scheduler.step()  # type: ignore[union-attr, call-arg]
        losses.append(value.detach())
    mean = torch.stack(losses).mean()
    if not torch.isfinite(mean):
        raise PersimError(
            f"training diverged in epoch {module.current_epoch} (loss {mean.item()}): lower its learning_rate"
        )
    size = losses[0].numel() * len(losses)
    module.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)


def one_cycle_adam(parameters: Iterable[nn.Parameter], rate: float, steps: int) -> tuple[Adam, OneCycleLR]:
    """Optimizer and one-cycle schedule, with its peak at `rate`, for a training of so many steps."""
    # A small epsilon: factors of agents with few rows see gradients near Adam's default one.
    optimizer = Adam(parameters, lr=rate, betas=(0.9, 0.99), eps=1e-12, fused=True)
    return optimizer, OneCycleLR(optimizer, max_lr=rate, total_steps=steps + 1, cycle_momentum=False)
