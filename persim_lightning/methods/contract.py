"""Interface of the methods that `persim benchmark` compares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.data.recordings import Recordings
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.evaluation.prediction import PredictionScores


@dataclass(frozen=True)
class Task:
    """Data, agents and settings of a method.

    Attributes
    ----------
    environment : Environment
        Planners may use its rewards and terminations; only "True env + MPC" may use its dynamics and covariates.
    recordings : Recordings
        One trajectory of every agent, and test trajectories.
    agents : tuple of int or str
        Ids of the agents that need policies.
    planning : PlanningSettings
        Settings of methods that plan.
    configuration : dict
        Content of conf/ENV.yaml, PerSim's settings in this environment.
    steps : int
        Gradient steps of every network, the same for all methods.
    seed : int
    workspace : Path
        Folder that methods of one environment, data set and seed share, for fits that several of them need.
    """

    environment: Environment
    recordings: Recordings
    agents: tuple[int | str, ...]
    planning: PlanningSettings
    configuration: dict[str, Any]
    steps: int
    seed: int
    workspace: Path

    def rows(self, episodes: int) -> Tensor:
        """Return the index in `agents` for every row of a batch of episodes, agent by agent, shape (N·E,)."""
        return torch.arange(len(self.agents)).repeat_interleave(episodes)

    def data(self, batch_size: int) -> TrajectoryDataModule:
        """Return the training data, with tails and walls treated as for PerSim and batches of the given size."""
        options = self.configuration["data"]
        return TrajectoryDataModule(self.recordings, batch_size, options["val_fraction"], options.get("walls", False))

    def identity(self) -> dict[str, Any]:
        """Return every setting of the task that decides a fit, ready for JSON."""
        table = self.recordings.files.get("sha256")
        return {"configuration": self.configuration, "steps": self.steps, "table": table, "seed": self.seed}

    def covariates(self) -> Tensor:
        """Return the true covariates of `agents`, shape (N, C), which parametrize the real environment."""
        names, values = self.recordings.covariate_names, self.recordings.covariates
        required = [covariate.name for covariate in self.environment.covariates]
        missing = set(required) - set(names)
        if values is None or missing:
            raise ConfigurationError(f"{self.recordings.name}: its agents lack the covariates {', '.join(missing)}")
        place = {label: row for row, label in enumerate(self.recordings.train.agent_ids)}
        rows = [place[label] for label in self.agents]
        return torch.from_numpy(values[rows][:, [names.index(name) for name in required]])


class Fitted(ABC):
    """A fitted method."""

    # Whether it plans at every step; such methods run fewer episodes.
    plans: ClassVar[bool] = False

    @abstractmethod
    def policy(self, task: Task, episodes: int) -> Policy | None:
        """Build a policy for `episodes` episodes of each of the task's agents, agent by agent, from t = 0.

        It may store the past of its episodes, so every batch needs a new one. None for methods that only predict.
        """

    def score(self, task: Task) -> PredictionScores | None:
        """Score predictions of the task's test trajectories; None for methods that do not predict."""
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the safetensors and JSON files that :meth:`Method.load` reads."""


class Method(ABC):
    """Learns policies from recorded trajectories. Its YAML holds the arguments of its constructor."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Return the name in tables, such as "BCQ-P"."""

    @abstractmethod
    def fit(self, task: Task) -> Fitted:
        """Learn; the same task gives the same result.

        Raises
        ------
        PersimError
            If a library is missing or the recordings are insufficient.
        """

    @abstractmethod
    def load(self, folder: Path, task: Task) -> Fitted:
        """Read the files of :meth:`Fitted.save`.

        Raises
        ------
        PersimError
            If a file is missing or damaged.
        """


class StoredPolicy(Protocol):
    """A policy that can be saved."""

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) float64 in [-1, 1]; noise comes from the generator only."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and settings (JSON) into `folder` atomically."""
        ...


class Learner(ABC):
    """Offline reinforcement learning of one policy from the trajectories of one or several agents."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the name, such as "BCQ"."""

    @abstractmethod
    def learn(self, trajectories: Trajectories, environment: Environment, steps: int, seed: int) -> StoredPolicy:
        """Learn a policy.

        Parameters
        ----------
        trajectories : Trajectories
            Trajectories with rewards.
        environment : Environment
            Source of action space and episode length, and of rewards and terminations for learners that simulate.
        steps : int
            Gradient steps of every network.
        seed : int

        Raises
        ------
        PersimError
            If a library is missing or the trajectories are insufficient.
        """

    @abstractmethod
    def load(self, folder: Path, environment: Environment) -> StoredPolicy:
        """Read the files of the policy's `save`.

        Raises
        ------
        PersimError
            If a file is missing or damaged.
        """
