"""Checks the low-rank theorem on a finished run or on an environment alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from persim_lightning.data.collecting.collect import ensure_training_data
from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.tables.covariates import load_covariates
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment, get_environment
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.models.population import FittedPopulation
from persim_lightning.store.names import THEOREM
from persim_lightning.support.files import check_writable
from persim_lightning.theory.check import check_theorem
from persim_lightning.theory.report import write_check
from persim_lightning.theory.results import AgentCovariates, TheoremCheck
from persim_lightning.theory.sample import sample_cells
from persim_lightning.theory.tensors import state_grid


class TheoremSubject(NamedTuple):
    """Data, simulators and true dynamics that are checked.

    Attributes
    ----------
    name : str
        Title.
    environment : Environment or None
        Source of the true dynamics, if they are known.
    population : FittedPopulation or None
        Simulators, if there are any.
    trajectories : Trajectories
        Trajectories whose agents, states and actions span the tensor.
    covariates : Path or None
        Table of the agents' covariates.
    """

    name: str
    environment: Environment | None
    population: FittedPopulation | None
    trajectories: Trajectories
    covariates: Path | None

    @classmethod
    def of_run(cls, folder: Path) -> TheoremSubject:
        """Check a finished run.

        Raises
        ------
        PersimError
            If the folder is not a finished run, or its table has changed.
        """
        run = FittedRun.load(folder)
        return cls(folder.name, run.environment, run.personalized, run.trajectories(), run.agents_path)

    @classmethod
    def of_environment(cls, name: str, dataset: str, agents: int, root: Path) -> TheoremSubject:
        """Check an environment on one of its data sets, which is collected if missing."""
        environment = get_environment(name)
        tables = ensure_training_data(root, environment, dataset, agents, 0)
        return cls(name, environment, None, load_trajectories(tables.table, environment.schema), tables.agents)


def check(
    subject: TheoremSubject, folder: Path, grid: int | None = None, seed: int = 0
) -> tuple[TheoremCheck, list[Path]]:
    """Check the theorem and write the results.

    Parameters
    ----------
    subject : TheoremSubject
    folder : Path
        Folder for `theorem.json` and figures.
    grid : int, optional
        Number of values of every state coordinate on a grid; recorded states by default.
    seed : int
        Seed that draws agents, states and actions.

    Returns
    -------
    check : TheoremCheck
    files : list of Path
        Files that were written.

    Raises
    ------
    PersimError
        If the folder cannot be written, or the tensor would be too large.
    """
    check_writable(folder / THEOREM)
    trajectories = subject.trajectories
    covariates = None
    if subject.covariates is not None:
        schema = trajectories.schema
        covariates = AgentCovariates(*load_covariates(subject.covariates, trajectories.agent_ids, schema.agent))
    sample = sample_cells(trajectories, seed)
    if grid is not None:
        low, high = trajectories.state.amin(0), trajectories.state.amax(0)
        sample = sample._replace(states=state_grid(low, high, grid).float())
    checked = check_theorem(subject.name, subject.population, trajectories, subject.environment, covariates, sample)
    return checked, write_check(checked, folder)
