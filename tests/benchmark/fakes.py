"""Methods that learn nothing, in no time."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from persim_lightning.errors import ConfigurationError, FitInterruptedError
from persim_lightning.evaluation.prediction import PredictionScores
from persim_lightning.methods.contract import Fitted, Method, Task
from persim_lightning.support.files import read_json, write_json


class Constant:
    """Pushes in one direction; with `noise`, in a random one now and then."""

    def __init__(self, action: int, noise: float) -> None:
        self.action, self.noise = action, noise

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        random = torch.rand(len(states), generator=generator) < self.noise
        return torch.where(random, torch.randint(2, (len(states),), generator=generator), self.action)


@dataclass
class FakeFitted(Fitted):
    action: int
    noise: float
    predicts: bool

    def policy(self, task: Task, episodes: int) -> Constant:
        return Constant(self.action, self.noise)

    def score(self, task: Task) -> PredictionScores | None:
        if not self.predicts:
            return None
        test = task.recordings.test
        assert test is not None
        count = test.num_agents
        rmse = torch.full((count,), 0.01, dtype=torch.float64)
        rmse[1] = torch.inf
        rmse[0] = 0.02
        whole = torch.full((count,), 200)
        return PredictionScores(rmse, torch.where(rmse < 1, 0.9, -torch.inf), whole, whole * 0, whole * (rmse > 1))

    def save(self, folder: Path) -> None:
        write_json(vars(self), folder / "fake.json")


class _PredictingFake(FakeFitted):
    def policy(self, task: Task, episodes: int) -> None:
        return None


class PlannedFake(FakeFitted):
    plans = True


class FakeMethod(Method):
    """Acts at random with probability `noise`, and otherwise does `action`.

    Parameters
    ----------
    name : str
    noise : float
    action : int
    plans, predicts : bool
    """

    def __init__(
        self, name: str, noise: float = 1.0, action: int = 0, plans: bool = False, predicts: bool = False
    ) -> None:
        self.name, self.noise, self.action, self.plans, self.predicts = name, noise, action, plans, predicts

    @property
    def label(self) -> str:
        return self.name

    def fit(self, task: Task) -> Fitted:
        with (task.workspace / f"fits-{self.name}.txt").open("a") as file:
            file.write("fit\n")
        print("a library speaks")
        return self._fitted()

    def load(self, folder: Path, task: Task) -> Fitted:
        assert read_json(folder / "fake.json")["action"] == self.action
        return self._fitted()

    def _fitted(self) -> FakeFitted:
        return (PlannedFake if self.plans else FakeFitted)(self.action, self.noise, self.predicts)


class _UntilRepaired(FakeMethod):
    """Goes wrong until there is a file `repaired` in the runs folder."""

    def fit(self, task: Task) -> Fitted:
        if not (task.workspace.parent / "repaired").exists():
            self.go_wrong()
        return super().fit(task)

    def go_wrong(self) -> None:
        raise NotImplementedError


class BadInput(_UntilRepaired):
    def go_wrong(self) -> None:
        raise ConfigurationError("the recordings\ndo not suffice")


class Bug(_UntilRepaired):
    def go_wrong(self) -> None:
        raise ZeroDivisionError("division by zero")


class Crash(_UntilRepaired):
    def go_wrong(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Interrupted(_UntilRepaired):
    """As if the user had pressed Ctrl-C, outside of a training or within one."""

    def go_wrong(self) -> None:
        raise {"outside": KeyboardInterrupt, "training": FitInterruptedError}[self.name]


class _Dark(FakeFitted):
    def policy(self, task: Task, episodes: int) -> Constant:
        if not (task.workspace.parent / "repaired").exists():
            raise RuntimeError("the light went out")
        return super().policy(task, episodes)


class DarkMethod(FakeMethod):
    """Cannot play until repaired."""

    def _fitted(self) -> FakeFitted:
        return _Dark(self.action, self.noise, self.predicts)


class PredictingMethod(FakeMethod):
    """Predicts, and has no policy."""

    def _fitted(self) -> FakeFitted:
        return _PredictingFake(self.action, self.noise, True)
