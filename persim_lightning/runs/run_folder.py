"""Chooses the run folder of a fit."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from persim_lightning.errors import ConfigurationError
from persim_lightning.store.names import (
    CHECKPOINTS,
    CONFIG,
    DESCRIPTION,
    LOCK,
    RANK_SELECTION,
    SETTINGS,
    last_checkpoint,
)

# Inherited by the ranks that Lightning launches, so that all agree on a folder named after the time.
_VARIABLE = "PERSIM_RUN_DIR"
# Files that show that a folder belongs to a fit.
_OWN = (CHECKPOINTS, CONFIG, DESCRIPTION, LOCK, RANK_SELECTION, SETTINGS)


def is_launched_rank() -> bool:
    """Return whether another process of the same fit has chosen the folder."""
    return _VARIABLE in os.environ


def choose_run_folder(run_dir: Path | None, checkpoint: Path | None, name: str) -> Path:
    """Choose the folder of a fit, and pass it on to the ranks that Lightning launches.

    Parameters
    ----------
    run_dir : Path, optional
        The user's choice.
    checkpoint : Path, optional
        Checkpoint to resume from; its run's folder is the default.
    name : str
        Name of the data, for the default `runs/NAME/TIME`.

    Raises
    ------
    ConfigurationError
        If the folder holds another run or foreign files, or separately started processes would choose different ones.
    """
    inherited = os.environ.get(_VARIABLE)
    if inherited is not None:
        return Path(inherited)
    resumed = None if checkpoint is None else checkpoint.resolve().parent.parent
    if run_dir is not None:
        folder = run_dir
    elif checkpoint is not None and resumed is not None:
        if checkpoint.resolve().parent.name != CHECKPOINTS or not (resumed / CONFIG).is_file():
            raise ConfigurationError(f"{checkpoint} is not in RUN/{CHECKPOINTS} of a run: give --run_dir")
        folder = resumed
    elif "WORLD_SIZE" in os.environ:
        raise ConfigurationError("give --run_dir: processes started by torchrun or SLURM must agree on a folder")
    else:
        folder = Path("runs") / name / time.strftime("%Y%m%d-%H%M%S")
    last = last_checkpoint(folder)
    holds_run = last.exists() or (folder / DESCRIPTION).exists()
    # Only rank zero checks: a slower rank may see files of this same run.
    if holds_run and folder.resolve() != resumed and int(os.environ.get("RANK", "0")) == 0:
        raise ConfigurationError(
            f"{folder} holds a run: choose another --run_dir, or resume the run with --ckpt_path {last}"
        )
    foreign = folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in _OWN)
    if foreign and folder.resolve() != resumed:
        raise ConfigurationError(f"{folder} holds other files: choose another --run_dir")
    os.environ[_VARIABLE] = str(folder.resolve())
    return folder


@contextlib.contextmanager
def claimed(folder: Path, leads: bool) -> Iterator[None]:
    """Keep other fits out of a run folder.

    Parameters
    ----------
    folder : Path
    leads : bool
        Whether this process is rank zero; other ranks of the same fit share its folder.

    Raises
    ------
    ConfigurationError
        If another fit is writing to the folder.
    """
    if not leads:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, blocking=False):
            yield
            # While it is held, so that no other fit holds a lock on a file that is gone.
            (folder / LOCK).unlink()
    except Timeout as error:
        raise ConfigurationError(f"{folder}: another fit is writing to it; choose another --run_dir") from error


@contextlib.contextmanager
def forget_folder() -> Iterator[None]:
    """Restore the environment variable at the end, since one process may fit several times (tests, notebooks)."""
    before = os.environ.get(_VARIABLE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
