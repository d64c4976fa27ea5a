"""Trains a PerSim simulator with Lightning: squared loss on Δs, one-cycle learning rate (PerSim, section 4)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from persim_lightning.adaptation.agent_factors import refit_agent_factors, residual_variance
from persim_lightning.data.batches import TransitionGather
from persim_lightning.data.chains import ChainGather
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError
from persim_lightning.models.chained import chain_loss
from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.models.ensemble import select_members
from persim_lightning.models.population import FittedPopulation
from persim_lightning.models.simulator import Simulator
from persim_lightning.training.chunks import one_cycle_adam, train_on_chunk
from persim_lightning.types import Chains, Schema, Transitions


def _plain(value: Any) -> Any:
    for kind in (int, float):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    return value


class PerSimModule(pl.LightningModule):
    """The PerSim ensemble as a LightningModule.

    One Lightning batch is a *chunk* of K batches for K optimizer steps, since Lightning's overhead per step exceeds the
    cost of a small step.

    Parameters
    ----------
    num_agents, state_dim, action_dim, num_actions, walls, integrator, bounds
        Sizes of the data, whether it has walls, how changes are integrated, and limits of the states; the command line
        links them.
    rank : int or 'auto'
        Rank R of the factorization (3 for MountainCar, 5 for CartPole, 15 for HalfCheetah in the paper). With auto,
        `persim fit` chooses it by short fits before it builds the module.
    factorization : {'cp', 'tucker'}
    rank_agent, rank_state, rank_action : int, optional
        Ranks per mode of a Tucker factorization; `rank` by default.
    members : int
        Ensemble members M.
    spare_members : int
        Additional members in training. Those with the highest training loss are dropped, since members occasionally
        get stuck and would spoil the mean.
    hidden_width, hidden_layers : int
        Size of the state encoder.
    action_hidden_width, action_hidden_layers : int
        Size of the encoder of continuous actions.
    action_spread : float
        Standard deviation of discrete actions' initial factors. With small values,
        training finds one direction of the action space after another; with large ones, it can stall at low ranks.
    angles : list of int, optional
        State coordinates that are unbounded angles.
    agent_factors : bool
        False fits one model of the whole population, without agent factors, for comparison.
    learning_rate : float
        Peak of the one-cycle schedule.
    gradient_clip_norm : float
        Clip the gradient of the members' summed loss to M times this norm.
    """

    def __init__(
        self,
        num_agents: PositiveInt,
        state_dim: PositiveInt,
        action_dim: NonNegativeInt,
        num_actions: PositiveInt | None,
        walls: bool = False,
        integrator: str = "euler",
        bounds: list[tuple[float, float]] | None = None,
        rank: PositiveInt | Literal["auto"] = 5,
        factorization: Literal["cp", "tucker"] = "cp",
        rank_agent: PositiveInt | None = None,
        rank_state: PositiveInt | None = None,
        rank_action: PositiveInt | None = None,
        members: PositiveInt = 5,
        spare_members: NonNegativeInt = 0,
        hidden_width: PositiveInt = 64,
        hidden_layers: NonNegativeInt = 2,
        action_hidden_width: PositiveInt = 64,
        action_hidden_layers: NonNegativeInt = 1,
        action_spread: PositiveFloat = 1.0,
        angles: list[int] | None = None,
        agent_factors: bool = True,
        learning_rate: PositiveFloat = 1e-2,
        gradient_clip_norm: PositiveFloat = 100.0,
    ) -> None:
        super().__init__()
        if rank == "auto":
            raise ConfigurationError("rank 'auto' works with persim fit only: give a number")
        self.save_hyperparameters()
        # Convert jsonargparse's restricted numbers, which a weights-only checkpoint cannot hold.
        self.hparams.update({name: _plain(value) for name, value in self.hparams.items()})
        self.automatic_optimization = False
        self.members = members + spare_members
        config = SimulatorConfig(
            num_agents=num_agents,
            state_dim=state_dim,
            action_dim=action_dim,
            num_actions=num_actions,
            members=self.members,
            ranks=Ranks(*(each or rank for each in (rank_agent, rank_state, rank_action))),
            factorization=factorization,
            state_hidden=(hidden_width,) * hidden_layers,
            action_hidden=(action_hidden_width,) * action_hidden_layers,
            angles=tuple(angles or ()),
            walls=walls,
            action_spread=action_spread,
            integrator=integrator,
            bounds=tuple(tuple(pair) for pair in bounds or ()),  # type: ignore[misc]
        )
        self.simulator = Simulator(config)
        if not agent_factors:
            deviation = self.simulator.agent_encoder.deviation.requires_grad_(False)
            deviation.zero_()
        self._schema: Schema | None = None

    @property
    def datamodule(self) -> TrajectoryDataModule:
        datamodule: TrajectoryDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return datamodule

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.simulator.set_statistics(self.datamodule.statistics)
            if self.hparams["walls"]:
                self.simulator.walls.set(self.datamodule.trajectories.walls())
            self._schema = self.datamodule.schema

    def gather(self, trajectories: Trajectories, rows: Tensor, training: bool) -> TransitionGather | ChainGather:
        """Return the function that builds batches from rows."""
        return self.datamodule.sample_gather(trajectories)

    def loss(self, batch: Transitions | Chains) -> Tensor:
        """Compute the mean squared error of normalized Δs for every member: batch (M, B, …) -> (M,)."""
        if isinstance(batch, Chains):
            return chain_loss(self.simulator, batch)
        predicted = self.simulator.normalized_delta(batch.agent, batch.state, batch.action)
        return (predicted - batch.delta / self.simulator.delta_rms).square().mean((1, 2))

    def training_step(self, chunk: Transitions | Chains, batch_idx: int) -> None:
        train_on_chunk(self, chunk, self.loss, self.hparams["gradient_clip_norm"] * self.members)

    def validation_step(self, batch: Transitions | Chains, batch_idx: int) -> None:
        """Log the one-step loss on the tails of the trajectories, weighted by batch size over ranks."""
        loss = self.loss(batch).mean()
        self.log("val/loss", loss, on_epoch=True, batch_size=batch.agent.shape[1], sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.trainer.max_epochs is not None
        optimizer, scheduler = self.build_optimizer(self.trainer.max_epochs * self.datamodule.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def build_optimizer(self, steps: int) -> tuple[Adam, OneCycleLR]:
        """Create the optimizer and its one-cycle schedule of `steps` steps."""
        return one_cycle_adam(self.parameters(), self.hparams["learning_rate"], steps)

    def finish(self) -> None:
        """Refit the agents' factors in closed form and drop the spare members."""
        device = self.simulator.delta_rms.device

        def transitions() -> Iterator[Transitions | Chains]:
            return self.datamodule.training_transitions(device)

        if self.hparams["agent_factors"]:
            covariates = self.datamodule.trajectories.covariates
            refit_agent_factors(self.simulator, transitions, None if covariates is None else covariates.numpy())
        else:
            self.simulator.noise.copy_(residual_variance(self.simulator, transitions()))
        if self.hparams["spare_members"]:
            best = self.simulator.noise.mean(1).argsort()[: self.hparams["members"]].sort().values
            self.simulator = select_members(self.simulator, best)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self._schema is not None
        checkpoint["schema"] = self._schema.to_dict()
        checkpoint["run"] = self._run_settings(self.datamodule, self.trainer.max_epochs)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._schema is not None:
            self.check_checkpoint(checkpoint, self.datamodule, self.trainer.max_epochs)

    @staticmethod
    def _run_settings(datamodule: TrajectoryDataModule, max_epochs: int | None) -> dict[str, Any]:
        """Return the settings, besides hyperparameters, that a resumed run must share with the interrupted one."""
        return {**datamodule.settings(), "max_epochs": max_epochs, "seed_everything": torch.initial_seed()}

    def check_checkpoint(
        self, checkpoint: dict[str, Any], datamodule: TrajectoryDataModule, max_epochs: int | None
    ) -> None:
        """Refuse a checkpoint of another table or architecture before loading weights.

        Parameters
        ----------
        checkpoint : dict
            Content of the file.
        datamodule : TrajectoryDataModule
            Data of the resumed training.
        max_epochs : int
            Last epoch, on which the learning-rate schedule depends.

        Raises
        ------
        ConfigurationError
        """
        if "schema" not in checkpoint or "run" not in checkpoint:
            raise ConfigurationError("the checkpoint was not written by this package: it does not describe its run")
        current = datamodule.schema
        schema = Schema.from_dict(checkpoint["schema"])
        if schema != current:
            raise ConfigurationError(
                f"the checkpoint was trained on state {', '.join(schema.state)} and action {', '.join(schema.action)}, "
                f"but the data has state {', '.join(current.state)}: it belongs to another environment"
            )
        now = {**self.hparams, **self._run_settings(datamodule, max_epochs)}
        before = {**checkpoint["hyper_parameters"], **checkpoint["run"]}
        if before["table"] != now["table"]:
            raise ConfigurationError(f"the checkpoint was trained on another table than {datamodule.recordings.name}")
        differing = [
            f"{name}={value!r} (now {now[name]!r})"
            for name, value in before.items()
            if name in now and now[name] != value
        ]
        if differing:
            raise ConfigurationError(f"the checkpoint was trained with other settings: {', '.join(differing)}")

    def personalized(self) -> FittedPopulation:
        """Return the trained simulators."""
        datamodule = self.datamodule
        return FittedPopulation(self.simulator, datamodule.schema, datamodule.agent_ids)

    def personalized_copy(self) -> FittedPopulation:
        """Return a copy of the trained simulators in main memory, where trajectories are."""
        datamodule = self.datamodule
        return FittedPopulation(copy.deepcopy(self.simulator).cpu(), datamodule.schema, datamodule.agent_ids)
