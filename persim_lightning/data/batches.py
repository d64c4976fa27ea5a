"""Batches gathered by index from tensors that stay whole, many batches at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError
from persim_lightning.types import Transitions

# Table rows gathered at once: many enough to hide Lightning's cost per batch, few enough to need only some MB.
CHUNK_ROWS = 1 << 18
# Rows at a time for closed-form work, which holds a (D, R) matrix in float64 for every row and member.
PART_ROWS = 1 << 13


class Gather(Protocol):
    """Builds a training batch from rows of a table.

    Attributes
    ----------
    rows_each : int
        Number of table rows that are read to build one sample.
    """

    rows_each: int

    def __call__(self, rows: Tensor) -> Any:
        """Row indices of any shape (...) -> a NamedTuple of tensors, shapes (..., *)."""
        ...


class BatchedModule(Protocol):
    """A LightningModule that can be trained on a :class:`~persim_lightning.data.datamodule.TrajectoryDataModule`.

    Attributes
    ----------
    members : int
        M, the number of ensemble members.
    """

    members: int

    def gather(self, trajectories: Trajectories, rows: Tensor, training: bool) -> Gather:
        """Return the function that builds batches from some of `rows`, shape (T,), for training or validation."""
        ...


class TransitionGather:
    """Builds batches of one-step transitions: each row gives the transition that starts in it.

    Parameters
    ----------
    trajectories : Trajectories
    """

    rows_each = 1

    def __init__(self, trajectories: Trajectories) -> None:
        self._trajectories, self._row_agent = trajectories, trajectories.row_agent()

    def __call__(self, rows: Tensor) -> Transitions:
        return self._trajectories.transitions(rows, self._row_agent)


def check_divisible(batch_size: int, world_size: int) -> None:
    """Raise a ConfigurationError if the processes cannot share each batch evenly."""
    if batch_size % world_size:
        raise ConfigurationError(f"batch_size {batch_size} must be a multiple of the number of processes {world_size}")


class ChunkedBatches:
    """Iterates over an epoch in chunks of K batches for M members; each member has its own random order.

    Every rank draws the same order and takes its share of each batch, so training on W ranks is equivalent to training
    on one. The order depends only on (seed, epoch), so a resumed run sees the same batches as an uninterrupted one.

    Parameters
    ----------
    gather : Gather
        Reads from tensors on the training device.
    rows : Tensor, shape (T,), int64
        Rows to visit.
    batch_size : int
        B, summed over all ranks.
    members : int
        M.
    seed : int
    epoch : callable, () -> int
        Returns the number of the current epoch.
    rank, world_size : int
    """

    def __init__(
        self,
        gather: Gather,
        rows: Tensor,
        *,
        batch_size: int,
        members: int,
        seed: int,
        epoch: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_divisible(batch_size, world_size)
        self._gather, self._rows = gather, rows
        self._batch_size, self._members, self._seed, self._epoch = batch_size, members, seed, epoch
        self._rank, self._world_size = rank, world_size
        self.steps = len(rows) // batch_size
        self._chunk = max(1, CHUNK_ROWS // (members * batch_size * gather.rows_each))

    def __len__(self) -> int:
        return -(-self.steps // self._chunk)

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch())
        used = self.steps * self._batch_size
        device = self._rows.device
        order = torch.stack([torch.randperm(len(self._rows), generator=generator)[:used] for _ in range(self._members)])
        batches = order.view(self._members, self.steps, self._batch_size).transpose(0, 1)
        share = batches.chunk(self._world_size, dim=-1)[self._rank]
        for chunk in share.split(self._chunk):
            yield self._gather(self._rows[chunk.to(device)])


class ValidationBatches:
    """Iterates over the validation rows of one rank; all members see the same rows.

    Parameters
    ----------
    gather : Gather
    rows : Tensor, shape (T,), int64
        Rows of this rank only.
    members : int
    """

    def __init__(self, gather: Gather, rows: Tensor, members: int) -> None:
        self._gather, self._members = gather, members
        self._chunks = rows.split(max(1, CHUNK_ROWS // (members * gather.rows_each)))

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._chunks:
            batch = self._gather(chunk)
            yield type(batch)(*(value.expand(self._members, *value.shape) for value in batch))
