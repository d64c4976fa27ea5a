"""The LightningDataModule of recorded trajectories: tensors stay whole, batches are selected by index."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor

from persim_lightning.data.batches import (
    PART_ROWS,
    BatchedModule,
    ChunkedBatches,
    TransitionGather,
    ValidationBatches,
    check_divisible,
)
from persim_lightning.data.chains import ChainGather, chain_rows
from persim_lightning.data.collecting.collect import ensure_test_data, ensure_training_data
from persim_lightning.data.recordings import Recordings, TablePaths, environment_recordings, table_recordings
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment, get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.types import Chains, Schema, Statistics, Transitions, WallContacts


class TrajectoryDataModule(pl.LightningDataModule):
    """Serves recorded trajectories to training.

    The LightningModule's `gather` builds each batch from rows, see
    :class:`~persim_lightning.data.batches.BatchedModule`.

    Parameters
    ----------
    recordings : Recordings
    batch_size : int
        Transitions per optimizer step and ensemble member.
    val_fraction : float
        Share of each trajectory, at its end, that is held out for validation.
    walls : bool
        Treat an extreme value of a coordinate at which states pile up as a wall: transitions that end at a wall are
        excluded from training, and predictions stop there.
    """

    def __init__(
        self, recordings: Recordings, batch_size: int = 512, val_fraction: float = 0.05, walls: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise ConfigurationError(f"val_fraction {val_fraction} is not in [0, 1)")
        self.recordings = recordings
        self._batch_size, self.val_fraction, self.walls = batch_size, val_fraction, walls

    @property
    def environment(self) -> Environment | None:
        return self.recordings.environment

    @property
    def trajectories(self) -> Trajectories:
        """Trajectories for training and validation."""
        return self.recordings.train

    @property
    def schema(self) -> Schema:
        return self.trajectories.schema

    @property
    def test_trajectories(self) -> Trajectories | None:
        """Test trajectories, or None if there are none."""
        return self.recordings.test

    @property
    def covariates(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Names and values (N, C) of the agents' covariates, for figures only; C is 0 if there are none."""
        values = self.recordings.covariates
        return self.recordings.covariate_names, np.zeros((self.num_agents, 0)) if values is None else values

    @property
    def agent_ids(self) -> tuple[int | str, ...]:
        return self.trajectories.agent_ids

    @property
    def num_agents(self) -> int:
        return self.trajectories.num_agents

    @property
    def state_dim(self) -> int:
        return self.schema.state_dim

    @property
    def action_dim(self) -> int:
        return self.schema.action_dim

    @property
    def num_actions(self) -> int | None:
        return self.schema.num_actions

    @cached_property
    def _walls(self) -> WallContacts | None:
        return self.trajectories.walls() if self.walls else None

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        """Rows that start transitions, for training and for validation."""
        train, validation = self.trajectories.split_rows(self.val_fraction)
        if not self.trajectories.is_regular:
            return train, validation
        return self.trajectories.free_rows(train, self._walls), self.trajectories.free_rows(validation, self._walls)

    @cached_property
    def _chains(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """First rows and lengths of chains, for training and for validation."""
        train, validation = (chain_rows(self.trajectories, rows) for rows in self._split)
        return train, validation

    @property
    def train_rows(self) -> Tensor:
        """Rows that start a training transition or chain, shape (T,)."""
        return self._split[0] if self.trajectories.is_regular else self._chains[0][0]

    @property
    def validation_rows(self) -> Tensor:
        """Rows that start a validation transition or chain, shape (V,)."""
        return self._split[1] if self.trajectories.is_regular else self._chains[1][0]

    @cached_property
    def statistics(self) -> Statistics:
        """Normalization constants of the training transitions."""
        return self.trajectories.statistics(self._split[0])

    @property
    def integrator(self) -> str:
        """How changes are integrated: as a map where rows are whole base steps apart, as a rate otherwise."""
        duration = self.trajectories.duration
        return "euler" if duration is None or bool((duration == duration.round()).all()) else "rk4"

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Limits of the states: those that the user gives, and a margin around what was recorded.

        Those of the three environments have none.
        """
        return [] if self.environment is not None else self.trajectories.world()

    def sample_gather(self, trajectories: Trajectories) -> TransitionGather | ChainGather:
        """Return the function that builds transitions or chains from the rows in which they start.

        Parameters
        ----------
        trajectories : Trajectories
            Those of this module, on the training device.
        """
        if trajectories.is_regular:
            return TransitionGather(trajectories)
        starts, lengths = (torch.cat(parts) for parts in zip(*self._chains, strict=True))
        return ChainGather(trajectories, starts, lengths, self._walls)

    def check(self, world_size: int) -> None:
        """Check that training can start, before any file is written.

        Parameters
        ----------
        world_size : int
            Number of processes that share each batch.

        Raises
        ------
        ConfigurationError
            If there is no training transition, or batches cannot be shared evenly.
        """
        if not len(self.train_rows):
            raise ConfigurationError(
                f"{self.recordings.name}: no transition is left for training; lower val_fraction, or set walls: false"
            )
        check_divisible(self._batch_size_on(world_size), world_size)

    def training_transitions(self, device: torch.device) -> Iterator[Transitions | Chains]:
        """Yield every training transition or chain once, in chunks small enough for closed-form estimates."""
        gather = self.sample_gather(self.trajectories)
        for rows in self.train_rows.split(max(1, PART_ROWS // gather.rows_each)):
            batch = gather(rows)
            yield type(batch)(*(value.to(device) for value in batch))

    @property
    def batch_size(self) -> int:
        """The configured size; if there are fewer training transitions, their number, rounded down to the ranks."""
        return self._batch_size_on(self.trainer.world_size if self.trainer is not None else 1)

    def _batch_size_on(self, world_size: int) -> int:
        rows = len(self.train_rows)
        return self._batch_size if self._batch_size <= rows else rows // world_size * world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; a last, incomplete batch is dropped."""
        return len(self.train_rows) // self.batch_size

    @cached_property
    def _on_device(self) -> Trajectories:
        assert self.trainer is not None
        return self.trajectories.to(self.trainer.strategy.root_device)

    def train_dataloader(self) -> ChunkedBatches:
        trainer = self.trainer
        assert trainer is not None
        rows = self.train_rows.to(trainer.strategy.root_device)
        return ChunkedBatches(
            self._module(trainer).gather(self._on_device, rows, training=True),
            rows,
            batch_size=self.batch_size,
            members=self._module(trainer).members,
            # The seed of training, not of the data. Broadcast, so that ranks agree even without a fixed seed.
            seed=trainer.strategy.broadcast(torch.initial_seed()) % 2**40,
            epoch=lambda: trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def val_dataloader(self) -> ValidationBatches | list[Transitions]:
        trainer = self.trainer
        assert trainer is not None
        rows = self.validation_rows
        if len(rows) < trainer.world_size:
            return []
        share = rows.tensor_split(trainer.world_size)[trainer.global_rank].to(trainer.strategy.root_device)
        gather = self._module(trainer).gather(self._on_device, share, training=False)
        return ValidationBatches(gather, share, self._module(trainer).members)

    def settings(self) -> dict[str, int | float | str | None]:
        """Settings that decide the batches of an epoch; a run can be resumed only under the same settings."""
        return {
            "table": self.recordings.files.get("sha256"),
            "batch_size": int(self._batch_size),
            "val_fraction": float(self.val_fraction),
        }

    @staticmethod
    def _module(trainer: pl.Trainer) -> BatchedModule:
        return cast(BatchedModule, trainer.lightning_module)


def open_data(
    env: str | None = None,
    dataset: str = "random",
    root: Path = Path("data"),
    agents: PositiveInt = 500,
    seed: NonNegativeInt = 0,
    path: Path | None = None,
    columns: TableColumns | None = None,
    test_path: Path | None = None,
    agents_path: Path | None = None,
    batch_size: PositiveInt = 512,
    val_fraction: float = 0.05,
    walls: bool = False,
) -> TrajectoryDataModule:
    """Open the data set of an environment (collected if it is missing), or your own table.

    Parameters
    ----------
    env : str, optional
        mountaincar, cartpole or halfcheetah; leave it out for your own table, which `columns` describes.
    dataset : str
        Data set to collect if `path` is not set: pure, random, pure-eps-20 or pure-eps-40.
    root : path
        Folder of collected data sets.
    agents : int
        Number of agents in a collected data set.
    seed : int
        Seed of a collected data set and of its test trajectories.
    path : path, optional
        Your own training table (.parquet or .csv, or a Minari data set's main_data.hdf5).
    columns : TableColumns, optional
        Meaning of the columns in your own tables.
    test_path : path, optional
        Test trajectories for the prediction protocol; collected data sets have their own.
    agents_path : path, optional
        Covariates of the agents, used in figures only; collected data sets have their own.
    batch_size : int
        Transitions per optimizer step and ensemble member.
    val_fraction : float
        Share of each trajectory, at its end, that is held out for validation.
    walls : bool
        Treat an extreme value of a coordinate at which states pile up as a wall: transitions that end at a wall are
        excluded from training, and predictions stop there.

    Raises
    ------
    PersimError
        If a table is malformed, or the settings contradict each other.
    """
    if (env is None) == (columns is None):
        raise ConfigurationError("give either data.env, or data.columns to describe your own table")
    if columns is not None:
        if path is None:
            raise ConfigurationError("data.path is missing: set it to the table that data.columns describes")
        recordings = table_recordings(TablePaths(path, test_path, agents_path), columns)
    else:
        assert env is not None
        environment = get_environment(env)
        if path is None:
            collected = ensure_training_data(root, environment, dataset, agents, seed)
            path, agents_path = collected.table, agents_path or collected.agents
            test_path = test_path or ensure_test_data(root, environment, seed)
        recordings = environment_recordings(environment, TablePaths(path, test_path, agents_path))
    return TrajectoryDataModule(recordings, batch_size, val_fraction, walls)
