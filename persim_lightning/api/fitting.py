"""Fits a population to a table in memory. Must be imported late, since it imports Lightning."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import torch

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.callbacks.bare_trainer import bare_trainer, quiet
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.data.recordings import Recordings
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import PersimWarning
from persim_lightning.evaluation.filtering import filtered_states
from persim_lightning.evaluation.intervals import calibrate
from persim_lightning.models.population import FittedPopulation
from persim_lightning.training.persim import PerSimModule

# Default number of optimizer steps, and the range of batch sizes.
_STEPS, _MIN_BATCH, _MAX_BATCH = 4000, 32, 512
# Share of a short trajectory that calibrates intervals.
_SHORT_TAIL = 0.34


def fit_population(
    trajectories: Trajectories, holdout: float, epochs: int | None, seed: int, progress: bool, **model: Any
) -> FittedPopulation:
    """Fit simulators of all agents, in one process on the CPU.

    Parameters
    ----------
    trajectories : Trajectories
    holdout : float
        Share of every trajectory, at its tail, that is not trained on.
    epochs : int, optional
        By default as many as give 4,000 optimizer steps.
    seed : int
        The global generator is restored.
    progress : bool
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
        max_epochs = epochs or max(1, round(_STEPS / data.steps_per_epoch))
        bare_trainer(progress, accelerator="cpu", max_epochs=max_epochs).fit(module, datamodule=data)
    return module.personalized()


def fit_calibrated(
    trajectories: Trajectories, holdout: float, epochs: int | None, seed: int, progress: bool, **model: Any
) -> tuple[FittedPopulation, Calibration | None]:
    """Fit simulators, and calibrate intervals on held-out tails.

    If no trajectory is long enough for `holdout`, a second fit without the last third of each calibrates the intervals,
    and the simulators are fitted on all rows. Parameters are those of :func:`fit_population`.
    """
    population = fit_population(trajectories, holdout, epochs, seed, progress, **model)
    calibration = calibrate(population, _filtered(population, trajectories), holdout)
    if calibration is not None or not bool((trajectories.tail_starts(_SHORT_TAIL) < trajectories.lengths - 1).any()):
        if calibration is None:
            warnings.warn("no trajectory has 4 rows, so there are no intervals", PersimWarning, stacklevel=3)
        return population, calibration
    heads = fit_population(trajectories, _SHORT_TAIL, epochs, seed, progress, **model)
    return population, calibrate(heads, _filtered(heads, trajectories), _SHORT_TAIL)


def _filtered(population: FittedPopulation, trajectories: Trajectories) -> Trajectories:
    return replace(trajectories, state=filtered_states(population, trajectories))
