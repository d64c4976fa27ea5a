"""One rule for work that is kept in a folder: reuse it if finished, refuse other settings, resume it if interrupted.

The settings that decide the result are written to `settings.json` before the work begins. A file that is written last
marks the work as finished. Fits, benchmark cells and runs of studies follow this rule.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persim_lightning.errors import ConfigurationError
from persim_lightning.store.names import SETTINGS, last_checkpoint
from persim_lightning.support.files import as_json, read_json, write_json

# What users of studies and benchmarks can do where a folder holds other work.
ADVICE = "choose another --runs"
# Errors name longer values without printing them.
_MAX_PRINTED = 60


def check_settings(saved: dict[str, Any], current: dict[str, Any], folder: Path, advice: str = ADVICE) -> None:
    """Refuse to reuse or resume work that was done under other settings.

    Parameters
    ----------
    saved, current : dict
        Settings that decide the result, ready for JSON.
    folder : Path
        Folder of the work.
    advice : str
        What the user can do.

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
        Everything that decides the result, as :func:`~persim_lightning.support.files.write_json` takes it.
    finished : str
        Name of the file that is written last.
    advice : str
        What the user can do where the settings differ.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], finished: str, advice: str = ADVICE) -> None:
        # As they come back from the file, so that infinities, tuples and integer keys compare equal.
        self.folder, self.settings = folder, as_json(settings)
        self._finished, self._advice = folder / finished, advice

    def open(self) -> bool:
        """Compare the settings with the folder's, and write them to a new one.

        Returns
        -------
        bool
            Whether the work is finished.

        Raises
        ------
        ConfigurationError
            If the folder holds work under other settings, or finished work of unknown settings.
        """
        record = self.folder / SETTINGS
        if record.is_file():
            check_settings(read_json(record), self.settings, self.folder, self._advice)
            return self._finished.is_file()
        if self._finished.is_file():
            raise ConfigurationError(f"{self.folder} holds work of unknown settings: remove it, or {self._advice}")
        write_json(self.settings, record)
        return False

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Do the work in this context: if it fails before its first checkpoint, other settings may be tried next."""
        try:
            yield
        except Exception:
            if not last_checkpoint(self.folder).exists():
                (self.folder / SETTINGS).unlink(missing_ok=True)
            raise
