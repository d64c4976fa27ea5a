"""Reads and writes the files of a personalized simulator besides those of its population."""

from __future__ import annotations

from pathlib import Path

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.data.tables.canonical import load_recorded_trajectories, trajectories_table
from persim_lightning.data.tables.sources import write_table
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment, get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.ladder.choice import Choice
from persim_lightning.models.outcomes import OutcomeModel, load_outcomes, save_outcomes
from persim_lightning.store.names import CALIBRATION, CHOICE, ENVIRONMENT, OUTCOMES, TRAJECTORIES
from persim_lightning.support.files import read_json, write_json
from persim_lightning.types import Schema


def save_parts(
    folder: Path,
    trajectories: Trajectories,
    outcomes: OutcomeModel | Environment | None,
    calibration: Calibration | None,
    choice: Choice | None,
) -> list[Path]:
    """Write recorded trajectories, outcomes, calibration and choice; remove those of an earlier simulator."""
    written = [folder / TRAJECTORIES]
    write_table(trajectories_table(trajectories), folder / TRAJECTORIES)
    for name in (OUTCOMES, ENVIRONMENT, CALIBRATION, CHOICE):
        (folder / name).unlink(missing_ok=True)
    if isinstance(outcomes, OutcomeModel):
        written.append(save_outcomes(outcomes, folder / OUTCOMES))
    elif outcomes is not None:
        written.append(folder / ENVIRONMENT)
        write_json({"environment": outcomes.name}, written[-1])
    if calibration is not None:
        written.append(calibration.save(folder / CALIBRATION))
    if choice is not None:
        written.append(choice.save(folder))
    return written


def load_recorded(folder: Path, schema: Schema) -> Trajectories:
    """Read the recorded trajectories.

    Raises
    ------
    TableError
        If the table is missing or damaged.
    """
    return load_recorded_trajectories(folder / TRAJECTORIES, schema)


def load_saved_outcomes(folder: Path, schema: Schema) -> OutcomeModel | Environment | None:
    """Read rewards and terminations, learned or of an environment; None if unknown.

    Raises
    ------
    PersimError
        If a file is damaged.
    """
    known, learned = folder / ENVIRONMENT, folder / OUTCOMES
    if known.is_file():
        values = read_json(known)
        if not isinstance(values, dict) or "environment" not in values:
            raise ConfigurationError(f"{known} is damaged: it names an unknown environment")
        return get_environment(values["environment"])
    return load_outcomes(learned, schema) if learned.is_file() else None


def load_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of intervals, if there is one."""
    path = folder / CALIBRATION
    return Calibration.load(path) if path.is_file() else None
