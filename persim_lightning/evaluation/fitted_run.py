"""What a finished run folder holds, for commands that go on from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from persim_lightning.data.tables.covariates import load_covariates
from persim_lightning.data.tables.user import read_like
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment, get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.files import file_sha256


@dataclass(frozen=True)
class FittedRun:
    """A run folder of `tools/fit.py`.

    Attributes
    ----------
    folder : Path
    environment : Environment or None
        None for a table of the user's own.
    personalized : FittedPopulation
    table_path : Path
        Table that it was trained on.
    agents_path : Path or None
        Table of the agents' covariates, where the run had one.
    table_sha256 : str
        Of the training table as it was then.
    """

    folder: Path
    environment: Environment | None
    personalized: FittedPopulation
    table_path: Path
    agents_path: Path | None
    table_sha256: str

    @classmethod
    def load(cls, folder: Path) -> FittedRun:
        """Read a run folder.

        Raises
        ------
        PersimError
            If it is not the folder of a finished run.
        """
        personalized = FittedPopulation.load(folder)
        config, provenance = folder / "config.yaml", folder / "provenance.json"
        for path in (config, provenance):
            if not path.is_file():
                raise ConfigurationError(f"{path}: no such file; is {folder} the folder of a finished run?")
        try:
            given = yaml.safe_load(config.read_text())["data"]
            environment = None if given["env"] is None else get_environment(given["env"])
            data = json.loads(provenance.read_text())["data"]
            table_path, agents_path, sha256 = Path(data["path"]), data.get("agents_path"), data["sha256"]
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ConfigurationError(
                f"{folder}: config.yaml or provenance.json is damaged ({type(error).__name__}: {error})"
            ) from error
        covariates = None if agents_path is None else Path(agents_path)
        return cls(folder, environment, personalized, table_path, covariates, sha256)

    def trajectories(self) -> Trajectories:
        """What the run was trained on.

        Raises
        ------
        PersimError
            If the table has gone or changed since.
        """
        trajectories = read_like(self.personalized.schema, self.table_path)
        if file_sha256(self.table_path) != self.table_sha256:
            raise ConfigurationError(f"{self.table_path} has changed since {self.folder} was trained on it")
        return trajectories

    def real_environment(self) -> Environment:
        """The real environment.

        Raises
        ------
        ConfigurationError
            If none is known.
        """
        if self.environment is None:
            raise ConfigurationError(f"{self.folder} was fitted on a table of your own: no real environment is known")
        return self.environment

    def covariates(self, agents: Sequence[int | str]) -> Tensor:
        """True covariates (N, C) of agents: they make the real environment, and no simulator sees them.

        Raises
        ------
        PersimError
            If the run had no table of covariates, or it does not hold these.
        """
        if self.agents_path is None:
            raise ConfigurationError(f"{self.folder} was fitted without a table of covariates (data.agents_path)")
        return true_covariates(self.real_environment(), self.agents_path, agents)


def true_covariates(environment: Environment, path: Path, agents: Sequence[int | str]) -> Tensor:
    """Covariates (N, C) of agents from a table, in the environment's order.

    Raises
    ------
    PersimError
        If the table does not hold them.
    """
    names, values = load_covariates(path, tuple(agents))
    wanted = [covariate.name for covariate in environment.covariates]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigurationError(f"{path}: no column '{missing[0]}'")
    return torch.from_numpy(values[:, [names.index(name) for name in wanted]])


def choose_agents(agent_ids: Sequence[int | str], text: str) -> tuple[int | str, ...]:
    """Agent ids from ids and ranges of integers, separated by commas: `0-4,17`.

    Parameters
    ----------
    agent_ids : sequence of int or str
        The known ones.
    text : str

    Raises
    ------
    ConfigurationError
        If an agent is unknown.
    """
    known = {str(label): label for label in agent_ids}
    chosen: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if part not in known and dash and first.isdigit() and last.isdigit():
            chosen += map(str, range(int(first), int(last) + 1))
        else:
            chosen.append(part)
    unknown = [label for label in chosen if label not in known]
    some = ", ".join(list(known)[:5])
    if unknown:
        raise ConfigurationError(f"agent '{unknown[0]}': the run knows {len(known)} agents ({some}, …)")
    if not chosen:
        raise ConfigurationError(f"agents '{text}' names no agent; the run knows {len(known)} ({some}, …)")
    return tuple(dict.fromkeys(known[label] for label in chosen))
