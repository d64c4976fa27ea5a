"""Loads a finished run folder, for commands that use its simulator and its data."""

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
from persim_lightning.store.names import CONFIG, PROVENANCE
from persim_lightning.support.files import file_sha256


@dataclass(frozen=True)
class FittedRun:
    """A finished run: its simulator and where its data come from.

    Attributes
    ----------
    folder : Path
    environment : Environment or None
        The real environment; None for a user's own table.
    personalized : FittedPopulation
    table_path : Path
        Training table.
    agents_path : Path or None
        Table of the agents' covariates, if the run had one.
    table_sha256 : str
        Hash of the training table at the time of training.
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
        config, provenance = folder / CONFIG, folder / PROVENANCE
        for path in (config, provenance):
            if not path.is_file():
                raise ConfigurationError(
                    f"{path}: no such file; give the folder of a finished persim fit, not one of persim adapt"
                )
        try:
            settings = yaml.safe_load(config.read_text())["data"]
            environment = None if settings["env"] is None else get_environment(settings["env"])
            data = json.loads(provenance.read_text())["data"]
            table_path, agents_path, sha256 = Path(data["path"]), data.get("agents_path"), data["sha256"]
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ConfigurationError(
                f"{folder}: {CONFIG} or {PROVENANCE} is damaged ({type(error).__name__}: {error})"
            ) from error
        covariates = None if agents_path is None else Path(agents_path)
        return cls(folder, environment, personalized, table_path, covariates, sha256)

    def trajectories(self) -> Trajectories:
        """Read the trajectories that the run was trained on.

        Raises
        ------
        PersimError
            If the table is missing, or has changed since then.
        """
        trajectories = read_like(self.personalized.schema, self.table_path)
        if file_sha256(self.table_path) != self.table_sha256:
            raise ConfigurationError(f"{self.table_path} has changed since {self.folder} was trained on it")
        return trajectories

    def real_environment(self) -> Environment:
        """Return the real environment.

        Raises
        ------
        ConfigurationError
            If there is none.
        """
        if self.environment is None:
            raise ConfigurationError(f"{self.folder} was fitted on your own table: there is no real environment")
        return self.environment

    def covariates(self, agents: Sequence[int | str]) -> Tensor:
        """Read the true covariates (N, C) of agents, which parametrize the real environment; simulators never see them.

        Raises
        ------
        PersimError
            If the run had no table of covariates, or covariates are missing in it.
        """
        if self.agents_path is None:
            raise ConfigurationError(f"{self.folder} was fitted without a table of covariates (data.agents_path)")
        return true_covariates(self.real_environment(), self.agents_path, agents)


def true_covariates(environment: Environment, path: Path, agents: Sequence[int | str]) -> Tensor:
    """Read the covariates (N, C) of agents from a table, in the environment's order.

    Raises
    ------
    PersimError
        If an agent or a covariate is missing in the table.
    """
    names, values = load_covariates(path, tuple(agents))
    required = [covariate.name for covariate in environment.covariates]
    missing = [name for name in required if name not in names]
    if missing:
        raise ConfigurationError(f"{path}: no column '{missing[0]}'")
    return torch.from_numpy(values[:, [names.index(name) for name in required]])
