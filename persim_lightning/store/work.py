"""One rule for work that is kept in a folder: finished, so reuse; other settings, so refuse; interrupted, so resume.

A fit, a benchmark cell and a study's run all ask the same question before they start. The settings that decide the
result are written to `settings.json` before the work begins; a marker file that only finished work has ends it.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from persim_lightning.errors import ConfigurationError
from persim_lightning.store.names import SETTINGS
from persim_lightning.support.files import read_json, write_json

# Longer values are named in errors, but not printed.
_MAX_PRINTED = 60


class State(Enum):
    """What a folder holds of the work that is asked for."""

    NEW = "new"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


def check_settings(saved: dict[str, Any], current: dict[str, Any], folder: Path, advice: str) -> None:
    """Refuse to reuse or resume what was made under other settings.

    Parameters
    ----------
    saved, current : dict
        Settings that decide the result, ready for JSON.
    folder : Path
        Where the work is kept.
    advice : str
        What the user can do, such as "choose another --runs".

    Raises
    ------
    ConfigurationError
        Names the settings that differ.
    """
    names = [name for name in dict.fromkeys([*current, *saved]) if saved.get(name) != current.get(name)]
    if names:
        changes = "; ".join(_describe_change(name, saved, current) for name in names)
        raise ConfigurationError(f"{folder} was made under other settings ({changes}): remove it, or {advice}")


def _describe_change(name: str, saved: dict[str, Any], current: dict[str, Any]) -> str:
    """Such as `steps 50, now 100`; long values are only named."""
    before, now = (str(values.get(name)) for values in (saved, current))
    return f"{name} {before}, now {now}" if max(len(before), len(now)) <= _MAX_PRINTED else name


class Work:
    """A piece of work in a folder of its own.

    Parameters
    ----------
    folder : Path
    settings : dict
        Everything that decides the result, ready for JSON.
    finished : str
        Name of the file that is written last.
    advice : str
        What the user can do where the settings differ.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], finished: str, advice: str = "choose another folder"
    ) -> None:
        self.folder, self.settings = folder, settings
        self._finished, self._advice = folder / finished, advice

    def open(self) -> State:
        """Look at the folder; note the settings there before work begins.

        Returns
        -------
        State

        Raises
        ------
        ConfigurationError
            If the folder holds work under other settings, or finished work of unknown settings.
        """
        record = self.folder / SETTINGS
        if record.is_file():
            check_settings(read_json(record), self.settings, self.folder, self._advice)
            return State.FINISHED if self._finished.is_file() else State.INTERRUPTED
        if self._finished.is_file():
            raise ConfigurationError(f"{self.folder} holds work of unknown settings: remove it, or {self._advice}")
        write_json(self.settings, record)
        return State.NEW
