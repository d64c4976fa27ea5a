"""Rollouts that a report compares with what happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.tables.user import read_like
from persim_lightning.evaluation.intervals import rollout_spread
from persim_lightning.evaluation.prediction import HORIZON, START, EpisodeWindows, predict
from persim_lightning.report.figures import Episode, Horizon
from persim_lightning.support.files import read_json

# Agents that have curves of their own, episodes of each, and episodes in all.
_MAX_AGENTS, _MAX_EPISODES, _MAX_WINDOWS = 8, 40, 1000
# Share of a trajectory, at its end, that is predicted where there are no test trajectories.
_TAIL = 0.1


@dataclass(frozen=True)
class ComparedRollouts:
    """Predictions beside what happened.

    Attributes
    ----------
    told : str
        What the trajectories are.
    unseen : bool
        Whether neither training nor the calibration of intervals has seen them.
    agents : list of str
        Of every window.
    windows : EpisodeWindows
    predicted : Tensor, shape (E, H, D)
    half_width : Tensor, shape (E, H, D), or None
        Of intervals, where the simulator is calibrated.
    scale : Tensor, shape (D,)
        Standard deviations of recorded states.
    """

    told: str
    unseen: bool
    agents: list[str]
    windows: EpisodeWindows
    predicted: Tensor
    half_width: Tensor | None
    scale: Tensor

    def episodes(self) -> list[Episode]:
        """The first window of each of some agents."""
        made = []
        for agent in list(dict.fromkeys(self.agents))[:_MAX_AGENTS]:
            row = self.agents.index(agent)
            steps, start = int(self.windows.steps[row]), self.windows.start[row][None]
            mean, recorded = (
                torch.cat((start, values[row, :steps])).numpy() for values in (self.predicted, self.windows.target)
            )
            half = self.half_width
            width = None if half is None else torch.cat((torch.zeros_like(start), half[row, :steps])).numpy()
            made.append(Episode(agent, mean, recorded, width))
        return made

    def curves(self) -> list[Horizon]:
        """Errors by horizon of every agent, or of all together where they are many."""
        names = list(dict.fromkeys(self.agents))
        if len(names) > _MAX_AGENTS:
            return [self._curve("all agents", list(range(len(self.agents))))]
        return [
            self._curve(f"agent {name}", [row for row, own in enumerate(self.agents) if own == name]) for name in names
        ]

    def _curve(self, label: str, rows: list[int]) -> Horizon:
        horizon = self.predicted.shape[1]
        valid = torch.arange(horizon) < self.windows.steps[rows, None]
        valid = valid[:, : int(valid.any(0).sum())]
        error = self.predicted[rows, : valid.shape[1]] - self.windows.target[rows, : valid.shape[1]]
        count = valid.sum(0)

        def mean(values: Tensor) -> Tensor:
            """Over windows that have the step, (E, H) -> (H,)."""
            return torch.where(valid, values, 0.0).sum(0) / count

        rmse = mean((error / self.scale).square().mean(-1)).sqrt().numpy()
        if self.half_width is None or not self.unseen:
            return Horizon(label, rmse, None)
        inside = (error.abs() <= self.half_width[rows, : valid.shape[1]]).double().mean(-1)
        return Horizon(label, rmse, mean(inside).numpy())


def compared_rollouts(folder: Path, simulator: PersonalizedSimulator, level: float) -> ComparedRollouts | None:
    """Roll out test trajectories where the run had any, the ends of its training trajectories otherwise.

    Parameters
    ----------
    folder : Path
        Run folder.
    simulator : PersonalizedSimulator
    level : float
        Of intervals.

    Returns
    -------
    ComparedRollouts or None
        None where no trajectory is long enough.
    """
    path = folder / "provenance.json"
    test = read_json(path)["data"].get("test_path") if path.is_file() else None
    told, trajectories, unseen = "the ends of recorded trajectories", simulator.trajectories, False
    start = trajectories.tail_starts(_TAIL)
    if test is not None and Path(test).is_file():
        told, trajectories, unseen = "test trajectories", read_like(simulator.schema, Path(test)), True
        start = torch.tensor(START).expand(trajectories.num_trajectories)
    each = _MAX_EPISODES if trajectories.num_agents <= _MAX_AGENTS else 1
    windows = EpisodeWindows.cut(trajectories, start, HORIZON).first_of_each(each, _MAX_WINDOWS)
    if not len(windows.steps):
        return None
    windows = windows.trimmed()
    labels = [trajectories.agent_ids[agent] for agent in windows.agent.tolist()]
    index, population = simulator.population.index(labels), simulator.population
    half = None
    if simulator.calibration is not None:
        spread = rollout_spread(population, simulator.trajectories, index, windows.start, windows.action)
        half = simulator.calibration.half_width(spread, level)
    predicted = predict(population.simulator, index, windows)
    scale = population.simulator.state_encoder.state_std
    return ComparedRollouts(told, unseen, list(map(str, labels)), windows, predicted, half, scale)
