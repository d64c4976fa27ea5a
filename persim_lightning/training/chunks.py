"""Optimizer steps over a chunk of batches, shared by the package's LightningModules."""

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
    """Take K optimizer steps, one after the other, and log their mean loss as `train/loss`.

    Chunks save time: Lightning's overhead per call is larger than the cost of a small optimizer step.

    Parameters
    ----------
    module : LightningModule
        Uses manual optimization, one optimizer and one scheduler.
    chunk : NamedTuple of Tensor, shapes (K, M, B, …)
    loss : callable, (batch of shapes (M, B, …)) -> (M,)
        Loss of every member.
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
    for batch in zip(*(tensor.unbind(0) for tensor in chunk), strict=True):
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
    """Create the optimizer and its one-cycle schedule of `steps` steps; the largest learning rate is `rate`."""
    # A small epsilon: the factors of agents with few rows have gradients as small as Adam's default epsilon.
    optimizer = Adam(parameters, lr=rate, betas=(0.9, 0.99), eps=1e-12, fused=True)
    return optimizer, OneCycleLR(optimizer, max_lr=rate, total_steps=steps + 1, cycle_momentum=False)
