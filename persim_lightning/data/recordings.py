"""Recorded data of a population: from an environment, from a user's own tables, or in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.covariates import load_covariates
from persim_lightning.data.tables.sources import read_table
from persim_lightning.data.tables.user import read_like, user_trajectories
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.support.files import file_sha256


@dataclass(frozen=True)
class TablePaths:
    """Files with the recorded data of a population.

    Attributes
    ----------
    train : Path
        Training trajectories.
    test : Path or None
        Test trajectories.
    agents : Path or None
        Covariates of the agents.

    Raises
    ------
    ConfigurationError
        If a path is not a file.
    """

    train: Path
    test: Path | None = None
    agents: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.train, self.test, self.agents):
            if path is not None and path.is_dir():
                raise ConfigurationError(
                    f"{path} is a folder; for a Minari data set, give its file data/main_data.hdf5"
                )
            if path is not None and not path.is_file():
                raise ConfigurationError(f"{path}: no such file")

    def describe(self) -> dict[str, str | None]:
        """Absolute paths, and the hashes of the training and test tables."""
        return {
            "path": str(self.train.resolve()),
            "sha256": file_sha256(self.train),
            "test_path": None if self.test is None else str(self.test.resolve()),
            "agents_path": None if self.agents is None else str(self.agents.resolve()),
            "test_sha256": None if self.test is None else file_sha256(self.test),
        }


@dataclass(frozen=True)
class Recordings:
    """Recorded data of a population.

    Attributes
    ----------
    train : Trajectories
    test : Trajectories or None
        Test trajectories; all their agents are also in `train`.
    covariate_names : tuple of str
    covariates : ndarray, shape (N, C), or None
        For evaluation and figures only.
    environment : Environment or None
        The real environment; None for a user's own table.
    files : dict
        Result of :meth:`TablePaths.describe`; empty for data in memory.
    """

    train: Trajectories
    test: Trajectories | None = None
    covariate_names: tuple[str, ...] = ()
    covariates: np.ndarray | None = None
    environment: Environment | None = None
    files: dict[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the training table in error messages."""
        return self.files.get("path") or "the table"


def environment_recordings(environment: Environment, paths: TablePaths) -> Recordings:
    """Read the recordings of an environment."""
    train = load_trajectories(paths.train, environment.schema)
    test = None if paths.test is None else load_trajectories(paths.test, environment.schema)
    return _recordings(paths, train, test, environment)


def table_recordings(paths: TablePaths, columns: TableColumns) -> Recordings:
    """Read a user's own tables; there is no real environment."""
    ids = [name for name in (columns.agent, columns.episode) if name is not None]
    train = user_trajectories(read_table(paths.train, ids), columns, str(paths.train))
    test = None if paths.test is None else read_like(train.schema, paths.test)
    return _recordings(paths, train, test, None)


def _recordings(
    paths: TablePaths, train: Trajectories, test: Trajectories | None, environment: Environment | None
) -> Recordings:
    unknown = set() if test is None else set(test.agent_ids) - set(train.agent_ids)
    if unknown:
        raise ConfigurationError(f"{paths.test}: agent {min(unknown)} is not in the training table {paths.train}")
    names, covariates = (
        ((), None) if paths.agents is None else load_covariates(paths.agents, train.agent_ids, train.schema.agent)
    )
    return Recordings(train, test, names, covariates, environment, paths.describe())
