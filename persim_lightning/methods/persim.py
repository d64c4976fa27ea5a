"""PerSim as a method of the benchmark: fitted with the settings of conf/ENV.yaml, planned by MPC."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.evaluation.control import simulator_mpc
from persim_lightning.evaluation.prediction import PredictionScores, score_predictions
from persim_lightning.methods.contract import Fitted, Method, Task
from persim_lightning.methods.training import train
from persim_lightning.models.population import FittedPopulation
from persim_lightning.store.names import DESCRIPTION, LOCK
from persim_lightning.store.work import Work
from persim_lightning.training.persim import PerSimModule


class PerSim(Method):
    """A personalized simulator of every agent, and MPC on it.

    Parameters
    ----------
    agent_factors : bool
        False fits one model of the whole population, without agent factors, for comparison.
    """

    def __init__(self, agent_factors: bool = True) -> None:
        self._agent_factors = agent_factors

    @property
    def label(self) -> str:
        return "PerSim" if self._agent_factors else "PerSim without agent factors"

    def fit(self, task: Task) -> FittedPerSim:
        return FittedPerSim(fit_population(task, self._agent_factors))

    def load(self, folder: Path, task: Task) -> FittedPerSim:
        return FittedPerSim(FittedPopulation.load(folder))


class FittedPerSim(Fitted):
    """Simulators of a population.

    Parameters
    ----------
    population : FittedPopulation
    """

    plans = True

    def __init__(self, population: FittedPopulation) -> None:
        self.population = population

    def policy(self, task: Task, episodes: int) -> Policy:
        return simulator_mpc(task.environment, self.population, task.agents, episodes, task.planning)[0]

    def score(self, task: Task) -> PredictionScores | None:
        test = task.recordings.test
        if test is None:
            return None
        return score_predictions(self.population.simulator, self.population.index(test.agent_ids), test)

    def save(self, folder: Path) -> None:
        self.population.save(folder)


def fit_population(task: Task, agent_factors: bool = True) -> FittedPopulation:
    """Fit PerSim, or load the fit of another method in the same workspace.

    Parameters
    ----------
    task : Task
    agent_factors : bool
        As for :class:`PerSim`.

    Raises
    ------
    ConfigurationError
        If the workspace holds a fit under other settings.
    """
    folder = task.workspace / ("persim" if agent_factors else "persim-no-agents")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**task.identity(), "agent_factors": agent_factors}
    with FileLock(folder / LOCK):
        # `save` writes the description last.
        work = Work(folder, settings, DESCRIPTION)
        if work.open():
            return FittedPopulation.load(folder)
        with work.attempt():
            population = _fit(task, folder, agent_factors)
        population.save(folder)
    return population


def _fit(task: Task, folder: Path, agent_factors: bool) -> FittedPopulation:
    configured = task.configuration
    data = task.data(configured["data"]["batch_size"])

    def build() -> PerSimModule:
        sizes = (data.num_agents, data.state_dim, data.action_dim, data.num_actions)
        arguments = {**configured["model"]["init_args"], "agent_factors": agent_factors}
        return PerSimModule(*sizes, walls=data.walls, **arguments)

    # Always single precision, since some nodes of a cluster may lack bfloat16 instructions.
    return train(build, data, task, folder).personalized()
