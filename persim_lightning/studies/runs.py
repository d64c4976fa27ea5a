"""Runs that studies are made of: fitted once, gone on with after an interruption, refused if something has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from persim_lightning.errors import ConfigurationError, FitInterruptedError
from persim_lightning.runs.fit import fit
from persim_lightning.support.files import file_sha256, read_json, write_json


def fit_or_reuse(run: Path, config: Path, options: list[str]) -> Path:
    """Leave a finished run in `run`: the one that is there, the one begun there, or a new one. Returns `run`."""
    if not config.is_file():
        raise ConfigurationError(f"{config}: no such file (--conf says where configurations lie)")
    asked = {"config": yaml.safe_load(config.read_text()), "options": options}
    record, last, finished = run / "study.json", run / "checkpoints" / "last.ckpt", run / "provenance.json"
    begun = last.is_file() or finished.is_file()
    if begun and (not record.is_file() or read_json(record) != asked):
        raise ConfigurationError(f"{run} was fitted under other settings: remove it, or choose another --runs")
    if finished.is_file():
        _check_data(run, read_json(finished)["data"])
        return run
    write_json(asked, record)
    resume = ["--ckpt_path", str(last)] if last.is_file() else []
    try:
        fit(["--config", str(config), *options, "--run_dir", str(run), *resume])
    except FitInterruptedError as error:
        raise FitInterruptedError("interrupted: the same command goes on") from error
    return run


def _check_data(run: Path, data: dict[str, Any]) -> None:
    """Refuse a run one of whose tables has changed or gone since."""
    for kind in ("", "test_"):
        if data[f"{kind}path"] is None:
            continue
        table = Path(data[f"{kind}path"])
        if not table.is_file() or file_sha256(table) != data[f"{kind}sha256"]:
            raise ConfigurationError(f"{run} was fitted on another {table}: remove the run, or choose another --runs")
