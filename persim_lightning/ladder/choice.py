"""The choice between simple and neural dynamics: backtest errors, members of the ensemble, and a verdict in words."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persim_lightning.errors import ConfigurationError, PersimWarning
from persim_lightning.store.names import CHOICE
from persim_lightning.support.files import read_json, write_json

PERSISTENCE = "persistence"
# Error, relative to persistence, from which a state counts as predicted better than by its last value.
_BETTER = 0.98


@dataclass(frozen=True)
class Choice:
    """What the backtest found.

    Attributes
    ----------
    state : tuple of str
        D columns.
    tail : float
        Share of every trajectory, at its tail, that was predicted.
    errors : dict of str to tuple of float
        By model: root mean squared error of every state in units of its standard deviation.
    members : dict of str to int
        By model: members of the ensemble; models without members are left out.
    combined : tuple of float
        Errors of the ensemble.
    """

    state: tuple[str, ...]
    tail: float
    errors: dict[str, tuple[float, ...]]
    members: dict[str, int]
    combined: tuple[float, ...]

    def better_than_persistence(self) -> list[bool]:
        """For every state, whether the ensemble predicts it better than its last value does."""
        last = self.errors[PERSISTENCE]
        return [own < _BETTER * simple for own, simple in zip(self.combined, last, strict=True)]

    def verdict(self) -> str:
        """Say in a sentence where the ensemble predicts better than the last value does."""
        better = self.better_than_persistence()
        if all(better):
            return "better than the last value for " + ("all states" if len(better) > 1 else f"'{self.state[0]}'")
        poor = ", ".join(f"'{name}'" for name, good in zip(self.state, better, strict=True) if not good)
        if not any(better):
            return f"no better than the last value for {poor}"
        return f"better than the last value for {sum(better)} of {len(better)} states; no better for {poor}"

    def warn(self) -> None:
        """Warn if no state is predicted better than by its last value."""
        if not any(self.better_than_persistence()):
            warnings.warn(
                "rollouts of held-out rows are no better than the last value for any state: more rows, or other "
                "actions and inputs, may help",
                PersimWarning,
                stacklevel=3,
            )

    def composition(self) -> str:
        """List the members of the ensemble."""
        total = sum(self.members.values())
        return ", ".join(f"{count} of {total} {name}" for name, count in self.members.items())

    def table(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Return headings and rows: the error of every model and of the ensemble, by state."""
        rows = [[name, *(f"{error:.3g}" for error in row)] for name, row in self.errors.items()]
        rows.append(["chosen ensemble", *(f"{error:.3g}" for error in self.combined)])
        return ("model", *self.state), rows

    def save(self, folder: Path) -> Path:
        """Write as JSON into a folder."""
        write_json(asdict(self), folder / CHOICE)
        return folder / CHOICE

    @classmethod
    def load(cls, folder: Path) -> Choice | None:
        """Read what :meth:`save` wrote; None if there is no such file.

        Raises
        ------
        ConfigurationError
            If the file is damaged.
        """
        path = folder / CHOICE
        if not path.is_file():
            return None
        values: dict[str, Any] = read_json(path)
        try:
            return cls(
                state=tuple(values["state"]),
                tail=float(values["tail"]),
                errors={name: tuple(map(float, row)) for name, row in values["errors"].items()},
                members={name: int(count) for name, count in values["members"].items()},
                combined=tuple(map(float, values["combined"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"{path} is damaged ({type(error).__name__})") from error
