"""PerSim as one of the methods that are compared: fitted as conf/ENV.yaml says, planned by MPC."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import simulator_mpc
from persim_lightning.evaluation.prediction import PredictionScores, score_predictions
from persim_lightning.methods.contract import Fitted, Method, Task
from persim_lightning.methods.training import train
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.files import read_json, write_json
from persim_lightning.training.persim import PerSimModule


class PerSim(Method):
    """A personalized simulator of every agent, and MPC on it."""

    @property
    def label(self) -> str:
        return "PerSim"

    def fit(self, task: Task) -> FittedPerSim:
        return FittedPerSim(fit_population(task))

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


def fit_population(task: Task) -> FittedPopulation:
    """Fit PerSim, or take what another method of the same workspace has fitted.

    Raises
    ------
    ConfigurationError
        If the workspace holds a fit under other settings.
    """
    folder = task.workspace / "persim"
    record, asked = folder / "fit.json", task.identity()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if record.is_file():
            if read_json(record) != asked:
                raise ConfigurationError(
                    f"{folder} was fitted under other settings: remove it, or choose another --runs"
                )
            return FittedPopulation.load(folder)
        population = _fit(task, folder)
        population.save(folder)
        # It says that the fit is finished, so it comes last.
        write_json(asked, record)
    return population


def _fit(task: Task, folder: Path) -> FittedPopulation:
    configured = task.configuration
    data = task.data(configured["data"]["batch_size"])

    def build() -> PerSimModule:
        sizes = (data.num_agents, data.state_dim, data.action_dim, data.num_actions)
        return PerSimModule(*sizes, walls=data.walls, **configured["model"]["init_args"])

    # In single precision whatever the configuration says: nodes of a cluster need not all have bfloat16 instructions.
    return train(build, data, task, folder, {}).personalized()
