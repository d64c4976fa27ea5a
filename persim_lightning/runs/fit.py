"""Fits simulators: opens the data, trains, scores, and writes the run folder."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import WandbLogger

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.callbacks.bare_trainer import bare_trainer
from persim_lightning.callbacks.calibrate import CalibrateIntervals
from persim_lightning.data.datamodule import TrajectoryDataModule, open_data
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError, FitInterruptedError
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.evaluation.filtering import filtered
from persim_lightning.evaluation.held_out import calibrate_by_second_fit
from persim_lightning.evaluation.intervals import coverage
from persim_lightning.ladder.neural import Neural
from persim_lightning.models.population import FittedPopulation
from persim_lightning.runs.rank_search import MEMBERS, TAIL, RankSelection, select_rank, short_epochs, write_selection
from persim_lightning.runs.run_folder import choose_run_folder, claimed, forget_folder, is_launched_rank
from persim_lightning.runs.settings import LINKED, FitSettings
from persim_lightning.runs.summary import print_summary
from persim_lightning.runs.trainer import (
    as_list,
    fit_callbacks,
    fit_loggers,
    save_wandb_id,
    slow_precision_note,
)
from persim_lightning.store.names import CALIBRATION, CONFIG, COVERAGE, PROVENANCE, last_checkpoint
from persim_lightning.support.configurations import find_configuration
from persim_lightning.support.files import atomic_write, check_writable, write_json
from persim_lightning.support.provenance import provenance
from persim_lightning.training.checkpoint_io import AtomicCheckpointIO
from persim_lightning.training.outcomes import fit_outcomes
from persim_lightning.training.persim import PerSimModule


def fit(settings: Mapping[str, Any]) -> Path:
    """Fit a simulator of every agent.

    Parameters
    ----------
    settings : mapping
        Content of a YAML such as conf/cartpole.yaml, with `run_dir`, `ckpt_path` and the other options of
        :class:`~persim_lightning.runs.settings.FitSettings`.

    Returns
    -------
    Path
        Run folder.

    Raises
    ------
    PersimError
        If settings, data or a checkpoint are invalid or contradict each other.
    FitInterruptedError
        On Ctrl-C; the message tells how to resume.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Lightning 2.6 calls a function of torch 2.13 by its old name at every batch.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    with forget_folder():
        return _train(_Fit(settings))


class _Fit(FitSettings):
    """The objects of a fit: data, model, trainer and run folder."""

    run_dir: Path
    calibrate: CalibrateIntervals

    def _set_seed(self) -> None:
        # FitSettings overrides it to do nothing.
        super(FitSettings, self)._set_seed()

    def before_instantiate_classes(self) -> None:
        torch.set_num_threads(self.config.threads)
        trainer = self.config.trainer
        if not (trainer.max_epochs or 0) > 0:
            raise ConfigurationError("trainer.max_epochs must be at least 1: the learning-rate schedule needs an end")
        if str(trainer.precision) in ("16", "16-mixed"):
            raise ConfigurationError("trainer.precision 16-mixed scales losses, which gradient clipping would not see")
        checkpoint = self.config.ckpt_path
        if checkpoint is not None and not checkpoint.is_file():
            raise ConfigurationError(f"--ckpt_path {checkpoint}: no such file")
        self._planning = self._load_planning()
        # Report a missing GPU before any data are collected.
        pl.Trainer(
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        note = slow_precision_note(trainer.accelerator, str(trainer.precision))
        if note is not None:
            print(note, file=sys.stderr)
        launched = is_launched_rank()
        self.run_dir = choose_run_folder(self.config.run_dir, checkpoint, self._data_name())
        check_writable(self.run_dir / CONFIG)
        if self.config.model.init_args.get("rank") == "auto":
            self.config.model.init_args.rank = self._choose_rank(launched)

    def _choose_rank(self, launched: bool) -> int:
        """Search for the rank of `rank: auto`, and record the search in the run folder."""
        if self.config.ckpt_path is not None or launched:
            # A resumed run keeps its rank; processes that Lightning launches read what the first one wrote.
            return RankSelection.load(self.run_dir).rank
        if {"WORLD_SIZE", "SLURM_NTASKS"} & set(os.environ) or self.config.trainer.num_nodes > 1:
            raise ConfigurationError(
                "model.rank auto searches before Lightning starts further processes: find the rank in a run of one "
                "process, and give the number here"
            )
        selection = self._search_rank()
        print(f"chose rank {selection.rank}; see {', '.join(map(str, write_selection(selection, self.run_dir)))}")
        return selection.rank

    def _search_rank(self) -> RankSelection:
        config = self.config
        data = self._open_data(TAIL)
        if not len(data.validation_rows):
            raise ConfigurationError(
                f"{data.recordings.name}: no trajectory is long enough to hold out {TAIL:.0%} of it, so that "
                "model.rank auto can compare ranks: give a number"
            )
        arguments = {**self._model_arguments(data), "members": MEMBERS, "spare_members": 0}
        trainer = {name: config.trainer[name] for name in ("precision", "accelerator")}
        epochs, seed = short_epochs(config.trainer.max_epochs, data.steps_per_epoch), config.seed_everything
        selection = select_rank(
            lambda rank: PerSimModule(**{**arguments, "rank": rank}), data, seed, max_epochs=epochs, **trainer
        )
        # Make the run independent of the number of short fits.
        pl.seed_everything(seed, verbose=False)
        return selection

    def _fit_again(self, tail: float, steps: int | None) -> Neural:
        """Train once more, in one process, without the tails of trajectories."""
        config, data = self.config, self._open_data(tail)
        pl.seed_everything(config.seed_everything, verbose=False)
        module = PerSimModule(**self._model_arguments(data))
        options = {name: config.trainer[name] for name in ("precision", "accelerator", "max_epochs")}
        if steps is not None:
            options["max_epochs"] = max(1, round(steps / data.steps_per_epoch))
        bare_trainer(**options).fit(module, datamodule=data)
        return Neural(module.personalized_copy(), data.statistics)

    def fit_heads(self, tail: float) -> FittedPopulation:
        """Train once more to calibrate the intervals of short trajectories."""
        print(f"trajectories are short: a second fit, without the last {tail:.0%} of each, calibrates the intervals")
        return self._fit_again(tail, None).population

    def _open_data(self, tail: float) -> TrajectoryDataModule:
        options = self.config.data.as_dict()
        columns = None if options["columns"] is None else TableColumns(**options["columns"])
        data = open_data(**{**options, "columns": columns, "val_fraction": tail})
        data.check(world_size=1)
        return data

    def _model_arguments(self, data: TrajectoryDataModule) -> dict[str, Any]:
        return {**self.config.model.init_args.as_dict(), **{name: getattr(data, name) for name in LINKED}}

    def _load_planning(self) -> PlanningSettings | None:
        """Read the planning settings before training; None for no episodes."""
        if not self.config.mpc_episodes:
            return None
        if self.config.data.env is None:
            raise ConfigurationError("--mpc_episodes needs a real environment, but data.env is not set")
        environment = get_environment(self.config.data.env)
        settings = PlanningSettings.load(find_configuration(self.config.planning or environment.name, "planning"))
        settings.objective(environment)
        return settings

    def _data_name(self) -> str:
        data = self.config.data
        return f"{data.env}-{data.dataset}" if data.env is not None else str(Path(data.path or "table").stem)

    def instantiate_classes(self) -> None:
        # FitSettings overrides it to do nothing.
        super(FitSettings, self).instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config, configured = self.config, self._get(self.config_init, "trainer")
        epochs, episodes = config.trainer.max_epochs, config.mpc_episodes
        self.calibrate = CalibrateIntervals(self._fit_again, config.models == "auto")
        callbacks = fit_callbacks(self.run_dir, epochs, config.check_theorem, episodes, self._planning, self.calibrate)
        if configured["max_time"] is not None:
            # Lightning's own timer stops within an epoch, from which training cannot resume exactly.
            kwargs["max_time"] = None
            callbacks.append(Timer(configured["max_time"], interval="epoch"))
        trainer: pl.Trainer = super().instantiate_trainer(
            logger=fit_loggers(self.run_dir, self._data_name(), config.wandb),
            plugins=[AtomicCheckpointIO(), *as_list(configured["plugins"])],
            callbacks=[*callbacks, *as_list(configured["callbacks"])],
            **kwargs,
        )
        return trainer


def _check_checkpoint(run: _Fit) -> None:
    """Refuse an unreadable or foreign checkpoint before anything is written."""
    path = run.config.ckpt_path
    if path is None:
        return
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file can make the unpickler raise anything
        raise ConfigurationError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    try:
        run.model.check_checkpoint(checkpoint, run.datamodule, run.trainer.max_epochs)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _train(run: _Fit) -> Path:
    run.datamodule.check(run.trainer.world_size)
    _check_checkpoint(run)
    with claimed(run.run_dir, run.trainer.is_global_zero):
        return _train_in_folder(run)


def _train_in_folder(run: _Fit) -> Path:
    start = time.monotonic()
    folder, trainer, data = run.run_dir, run.trainer, run.datamodule
    facts = provenance(data.recordings.files, run.config.seed_everything)
    if trainer.is_global_zero:
        with atomic_write(folder / CONFIG) as temporary:
            temporary.write_text(run.parser.dump(run.config, skip_none=False))
        save_wandb_id(trainer.loggers, folder)
    last = last_checkpoint(folder)
    try:
        trainer.fit(run.model, datamodule=data, ckpt_path=run.config.ckpt_path, weights_only=True)
    except SystemExit as error:
        # Lightning turns Ctrl-C into SystemExit.
        advice = f"resume with --ckpt_path {last}" if last.exists() else "no checkpoint was written, so start again"
        raise FitInterruptedError(f"interrupted: {advice}") from error
    if not trainer.current_epoch:
        raise ConfigurationError("trainer.max_time ended before the first epoch: give more time")
    if trainer.current_epoch < (trainer.max_epochs or 0):
        print(f"stopped after {trainer.current_epoch} of {trainer.max_epochs} epochs; resume with --ckpt_path {last}")
    if trainer.is_global_zero:
        covered = _complete(run)
        seconds = time.monotonic() - start
        write_json({**facts, "seconds": seconds}, folder / PROVENANCE)
        print_summary(trainer, data, covered, run.calibrate.choice, folder, seconds)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            logger.experiment.finish()
    return folder


def _complete(run: _Fit) -> list[dict[str, Any]]:
    """Save rewards, terminations and intervals learned from the data; return the coverage of test trajectories."""
    data, population = run.datamodule, run.model.personalized()
    calibration, test = run.calibrate.calibration, data.test_trajectories
    if run.calibrate.choice is not None:
        run.calibrate.choice.warn()
    if data.environment is None:
        if calibration is None and run.trainer.world_size == 1:
            calibration = calibrate_by_second_fit(run.fit_heads, data.trajectories)
        elif calibration is None:
            print("trajectories are too short for val_fraction, so there are no intervals: fit in one process for them")
        simulator = PersonalizedSimulator(population, data.trajectories, None, calibration, run.calibrate.choice)
        simulator.outcomes = fit_outcomes(simulator.trajectories, run.config.seed_everything)
        simulator.save(run.run_dir)
    elif calibration is not None:
        calibration.save(run.run_dir / CALIBRATION)
    if calibration is None or test is None:
        return []
    covered = coverage(population, data.trajectories, calibration, filtered(population, test))
    write_json(covered, run.run_dir / COVERAGE)
    return covered
