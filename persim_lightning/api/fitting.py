"""Fits a population to a table in memory. Must be imported late, since it imports Lightning."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.callbacks.bare_trainer import bare_trainer, quiet
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.data.recordings import Recordings
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.held_out import calibrate_and_refit, calibrate_by_second_fit, has_tail
from persim_lightning.ladder.choice import Choice
from persim_lightning.ladder.choose import backtest_tail, can_merge, settle
from persim_lightning.ladder.neural import NEURAL, FitNeural, Neural, budgets
from persim_lightning.models.population import FittedPopulation
from persim_lightning.training.persim import PerSimModule

# Default number of optimizer steps, by how much uneven tables may exceed it, and the range of batch sizes.
_STEPS, _MOST, _MIN_BATCH, _MAX_BATCH = 4000, 2.0, 32, 512


def fit_population(
    trajectories: Trajectories,
    holdout: float,
    epochs: int | None,
    seed: int,
    progress: bool,
    steps: int | None = None,
    **model: Any,
) -> Neural:
    """Fit neural simulators of all agents, in one process on the CPU.

    Parameters
    ----------
    trajectories : Trajectories
    holdout : float
        Share of every trajectory, at its tail, that is not trained on.
    epochs : int, optional
        By default as many as give 4,000 optimizer steps, up to 8,000 for uneven tables of many rows.
    seed : int
        The global generator is restored.
    progress : bool
    steps : int, optional
        Optimizer steps, instead of epochs.
    **model
        Options of :class:`~persim_lightning.training.persim.PerSimModule`.

    Raises
    ------
    PersimError
        If there is no training transition, or training diverges.
    """
    rows = len(trajectories.split_rows(0.0)[0])
    batch = 2 ** round(math.log2(min(max(rows / 50, _MIN_BATCH), _MAX_BATCH)))
    data = TrajectoryDataModule(Recordings(trajectories), batch_size=batch, val_fraction=holdout)
    data.check(world_size=1)
    schema = trajectories.schema
    sizes = data.num_agents, schema.state_dim, schema.action_dim, schema.num_actions
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        module = PerSimModule(*sizes, integrator=data.integrator, bounds=data.bounds, **model)
        wanted = steps or _default_steps(data, rows)
        max_epochs = epochs if epochs and not steps else max(1, round(wanted / data.steps_per_epoch))
        bare_trainer(progress, accelerator="cpu", max_epochs=max_epochs).fit(module, datamodule=data)
    return Neural(module.personalized(), data.statistics)


def _default_steps(data: TrajectoryDataModule, rows: int) -> float:
    """Number of optimizer steps; rates of long uneven tables converge more slowly than maps of even ones."""
    return _STEPS * min(max(rows / _STEPS, 1.0), _MOST) if data.integrator == "rk4" else _STEPS


class Fit(NamedTuple):
    """Simulators, their intervals if trajectories are long enough, and how they were chosen."""

    population: FittedPopulation
    calibration: Calibration | None
    choice: Choice | None


def fit_calibrated(
    trajectories: Trajectories,
    holdout: float,
    epochs: int | None,
    seed: int,
    progress: bool,
    models: Literal["auto", "neural"] = "auto",
    **model: Any,
) -> Fit:
    """Fit simulators, and calibrate intervals on held-out tails.

    Parameters are those of :func:`fit_population`, and `models`, as in
    :meth:`~persim_lightning.api.simulator.PersonalizedSimulator.fit`.
    """
    if not 0 <= holdout < 1:
        raise ConfigurationError(f"holdout {holdout} is not in [0, 1)")

    def fit(tail: float, steps: int | None) -> Neural:
        return fit_population(trajectories, tail, epochs, seed, progress, steps, **model)

    members = model.get("members", 5)
    tail = backtest_tail(trajectories, holdout)
    if models == "neural" or not can_merge(model) or not has_tail(trajectories, tail):
        return Fit(*_fit_neural(fit, trajectories, holdout), None)
    rows = len(trajectories.state)
    wanted: dict[str, int | None] = {NEURAL: None} if epochs else budgets(rows, _STEPS)
    settled = settle(fit, wanted, trajectories, tail, members, retrain=tail != holdout)
    settled.choice.warn()
    if progress:
        print(f"on held-out rows: {settled.choice.verdict()} ({settled.choice.composition()})")
    return Fit(*settled)


def _fit_neural(
    fit: FitNeural, trajectories: Trajectories, holdout: float
) -> tuple[FittedPopulation, Calibration | None]:
    population = fit(holdout, None).population
    calibration = calibrate_and_refit(population, trajectories, holdout)
    if calibration is None:
        calibration = calibrate_by_second_fit(lambda tail: fit(tail, None).population, trajectories)
    return population, calibration
