"""Fits the runs of studies once; resumes interrupted ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persim_lightning.errors import ConfigurationError, FitInterruptedError
from persim_lightning.runs.fit import fit
from persim_lightning.store.names import PROVENANCE, last_checkpoint
from persim_lightning.store.work import ADVICE, Work
from persim_lightning.support.files import file_sha256, read_json


def fit_once(run: Path, settings: Mapping[str, Any]) -> Path:
    """Fit a run unless it is finished; resume it if it was interrupted.

    Parameters
    ----------
    run : Path
    settings : mapping
        As :func:`~persim_lightning.runs.fit.fit` takes them, in one process.

    Returns
    -------
    Path
        `run`.

    Raises
    ------
    PersimError
        If the folder holds a run under other settings, or on tables that have changed.
    """
    trainer = settings["trainer"]
    if trainer["devices"] not in (1, "1") or trainer["num_nodes"] > 1:
        # Lightning would start the whole study again for every further process.
        raise ConfigurationError("trainer.devices and trainer.num_nodes of a study's fits must be 1")
    if Work(run, dict(settings), PROVENANCE).open():
        _check_tables(run)
        return run
    last = last_checkpoint(run)
    paths = {"run_dir": str(run), "ckpt_path": str(last) if last.is_file() else None}
    try:
        return fit({**settings, **paths})
    except FitInterruptedError as error:
        raise FitInterruptedError("interrupted: the same command resumes") from error


def _check_tables(run: Path) -> None:
    """Refuse a run one of whose tables has changed or is gone."""
    data = read_json(run / PROVENANCE)["data"]
    for kind in ("", "test_"):
        if data[f"{kind}path"] is None:
            continue
        table = Path(data[f"{kind}path"])
        if not table.is_file() or file_sha256(table) != data[f"{kind}sha256"]:
            raise ConfigurationError(f"{run} was fitted on another {table}: remove the run, or {ADVICE}")
