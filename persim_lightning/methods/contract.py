"""What every method that `tools/benchmark.py` compares is given and gives."""

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
    """What a method learns from, and for whom.

    Attributes
    ----------
    environment : Environment
        Its rewards and terminations are known to planners; its dynamics and the agents' covariates are known to no
        method but "True env + MPC".
    recordings : Recordings
        One trajectory of every agent, and test trajectories.
    agents : tuple of int or str
        Ids of the agents that policies are wanted for.
    planning : PlanningSettings
        Of methods that plan.
    configuration : dict
        What conf/ENV.yaml says: how PerSim is fitted in this environment.
    steps : int
        Gradient steps of every network, for all methods alike.
    seed : int
    workspace : Path
        Folder that methods of one environment, data set and seed share: fits that several of them need lie here.
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
        """Position in `agents` of every row of a batch of episodes, agent by agent, shape (N·E,)."""
        return torch.arange(len(self.agents)).repeat_interleave(episodes)

    def data(self, batch_size: int) -> TrajectoryDataModule:
        """The recordings as training sees them: tails held out and walls apart as for PerSim, batches of one's own."""
        options = self.configuration["data"]
        return TrajectoryDataModule(self.recordings, batch_size, options["val_fraction"], options.get("walls", False))

    def identity(self) -> dict[str, Any]:
        """Everything of the task that decides what PerSim, or a method trained beside it, learns; ready for JSON."""
        table = self.recordings.files.get("sha256")
        return {"configuration": self.configuration, "steps": self.steps, "table": table, "seed": self.seed}

    def covariates(self) -> Tensor:
        """True covariates of `agents`, shape (N, C), in the environment's order: they make the real environment."""
        names, values = self.recordings.covariate_names, self.recordings.covariates
        wanted = [covariate.name for covariate in self.environment.covariates]
        missing = set(wanted) - set(names)
        if values is None or missing:
            raise ConfigurationError(f"{self.recordings.name}: no covariates {', '.join(missing)} of its agents")
        place = {label: row for row, label in enumerate(self.recordings.train.agent_ids)}
        rows = [place[label] for label in self.agents]
        return torch.from_numpy(values[rows][:, [names.index(name) for name in wanted]])


class Fitted(ABC):
    """What a method has learned."""

    # Whether it plans before every step; such methods are judged by fewer episodes.
    plans: ClassVar[bool] = False

    @abstractmethod
    def policy(self, task: Task, episodes: int) -> Policy | None:
        """A policy for a batch of `episodes` episodes of each of the task's agents, agent by agent, played from t = 0.

        It may remember what has been played, so every batch needs one of its own. None for methods that only predict.
        """

    def score(self, task: Task) -> PredictionScores | None:
        """Scores of the prediction protocol on the task's test trajectories; None for methods that predict nothing."""
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that :meth:`Method.load` needs besides the task: safetensors and JSON."""


class Method(ABC):
    """A way from recorded trajectories to policies. Its constructor's arguments are what its YAML says."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name in tables, such as "BCQ-P"."""

    @abstractmethod
    def fit(self, task: Task) -> Fitted:
        """Learn. Same task, same result.

        Raises
        ------
        PersimError
            If a library is missing or the recordings do not suffice.
        """

    @abstractmethod
    def load(self, folder: Path, task: Task) -> Fitted:
        """Read what :meth:`Fitted.save` wrote.

        Raises
        ------
        PersimError
            If it is missing or damaged.
        """


class StoredPolicy(Protocol):
    """A policy that can be saved."""

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) float64 in [-1, 1]; all chance comes from the generator."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and what else is needed (JSON) into `folder`, each whole or not at all."""
        ...


class Learner(ABC):
    """Offline reinforcement learning: from trajectories, of one agent or of many, to one policy for all of them."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Such as "BCQ"."""

    @abstractmethod
    def learn(self, trajectories: Trajectories, environment: Environment, steps: int, seed: int) -> StoredPolicy:
        """Learn a policy.

        Parameters
        ----------
        trajectories : Trajectories
            With rewards.
        environment : Environment
            Number of actions, length of episodes; rewards and terminations for learners that simulate.
        steps : int
            Gradient steps of every network.
        seed : int

        Raises
        ------
        PersimError
            If a library is missing or the trajectories do not suffice.
        """

    @abstractmethod
    def load(self, folder: Path, environment: Environment) -> StoredPolicy:
        """Read what the policy's `save` wrote.

        Raises
        ------
        PersimError
            If it is missing or damaged.
        """
