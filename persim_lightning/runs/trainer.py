"""Builds the loggers and callbacks of a fit; all write to the run folder."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from persim_lightning.callbacks.calibrate import CalibrateIntervals
from persim_lightning.callbacks.control import MPCEpisodes
from persim_lightning.callbacks.finish import FinishEnsemble
from persim_lightning.callbacks.latents import LatentFactors
from persim_lightning.callbacks.progress import EpochProgress
from persim_lightning.callbacks.rollouts import RolloutScores
from persim_lightning.callbacks.save import SaveSimulator
from persim_lightning.callbacks.stopped import SaveWhenStopped
from persim_lightning.callbacks.theorem import LowRankCheck
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.store.names import LAST_CHECKPOINT, METRICS, WANDB_RUN, last_checkpoint
from persim_lightning.support.files import read_json, write_json
from persim_lightning.support.wandb import PROJECT, wandb_mode, wandb_settings

_CHECKPOINTS_PER_RUN = 20
_ROLLOUT_SCORES_PER_RUN = 10


def fit_callbacks(
    folder: Path,
    epochs: int,
    check_theorem: bool,
    episodes: int,
    planning: PlanningSettings | None,
    calibrate: CalibrateIntervals,
) -> list[pl.Callback]:
    """Build the callbacks of a fit, in the order in which they must run.

    Parameters
    ----------
    folder : Path
        Run folder.
    epochs : int
    check_theorem : bool
    episodes : int
        Number of MPC episodes of every test agent.
    planning : PlanningSettings or None
        None for no episodes.
    calibrate : CalibrateIntervals
    """
    checkpoints = ModelCheckpoint(
        dirpath=last_checkpoint(folder).parent,
        filename=LAST_CHECKPOINT,
        enable_version_counter=False,
        every_n_epochs=_checkpoint_interval(epochs),
        save_on_train_epoch_end=True,
    )
    callbacks: list[pl.Callback] = [
        SaveWhenStopped(last_checkpoint(folder)),
        FinishEnsemble(),
        SaveSimulator(folder),
        calibrate,
        checkpoints,
        EpochProgress(),
        RolloutScores(folder, every_n_epochs=max(1, epochs // _ROLLOUT_SCORES_PER_RUN)),
        LatentFactors(folder),
    ]
    if check_theorem:
        callbacks.append(LowRankCheck(folder))
    if planning is not None:
        callbacks.append(MPCEpisodes(folder, episodes, planning))
    return callbacks


def fit_loggers(folder: Path, group: str, wandb: str) -> list[Logger]:
    """Build the loggers: CSV files, and Weights & Biases unless disabled.

    Parameters
    ----------
    folder : Path
        Run folder.
    group : str
        Group of the W&B run: the name of the data.
    wandb : {'auto', 'online', 'offline', 'disabled'}
    """
    loggers: list[Logger] = [CSVLogger(folder, name=METRICS)]
    mode = wandb_mode(wandb)
    if mode != "disabled":
        loggers.append(
            WandbLogger(
                project=PROJECT,
                name=folder.name,
                group=group,
                id=_wandb_id(folder),
                resume="allow",
                save_dir=folder,
                offline=mode != "online",
                settings=wandb_settings(mode),
            )
        )
    return loggers


def _wandb_id(folder: Path) -> str:
    """Return the id of the folder's W&B run, with which a resumed run goes on, or a new one."""
    path = folder / WANDB_RUN
    return str(read_json(path)["id"]) if path.is_file() else uuid.uuid4().hex


def save_wandb_id(loggers: Sequence[Logger], folder: Path) -> None:
    """Write the id of a W&B run to its folder."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            write_json({"id": logger.version}, folder / WANDB_RUN)


def as_list(value: Any) -> list[Any]:
    """Convert a Trainer option that is None, one object or a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _checkpoint_interval(epochs: int) -> int:
    """Return the epochs between checkpoints, so that a run writes about twenty, the last at its end."""
    longest = max(1, epochs // _CHECKPOINTS_PER_RUN)
    return max(interval for interval in range(1, longest + 1) if epochs % interval == 0)


def slow_precision_note(accelerator: str, precision: str) -> str | None:
    """Return a note if the CPU only emulates the requested precision."""
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    if on_cpu and precision.startswith("bf16") and torch.backends.cpu.get_cpu_capability() == "AVX2":
        return "note: this CPU has no bfloat16 instructions; --trainer.precision 32-true is many times faster"
    return None
