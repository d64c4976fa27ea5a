"""Compares rollouts with recorded trajectories, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.tables.user import read_like
from persim_lightning.evaluation.intervals import rollout_spread
from persim_lightning.evaluation.prediction import HORIZON, EpisodeWindows, predict
from persim_lightning.report.figures import Episode, Horizon
from persim_lightning.store.names import PROVENANCE
from persim_lightning.support.files import read_json

# Largest number of agents with a curve each, of episodes per agent, and of episodes in total.
_MAX_AGENTS, _MAX_EPISODES, _MAX_WINDOWS = 8, 40, 1000
# Share of a trajectory, at its end, that is predicted if there are no test trajectories.
_TAIL = 0.1


@dataclass(frozen=True)
class ComparedRollouts:
    """Predicted and recorded states of E windows.

    Attributes
    ----------
    recorded : str
        Description of the recorded trajectories.
    unseen : bool
        Whether neither training nor the calibration of intervals used them.
    agents : list of str
        Agent of every window.
    windows : EpisodeWindows
    predicted : Tensor, shape (E, H, D)
    half_width : Tensor, shape (E, H, D), or None
        Half widths of the intervals; None if the simulator is not calibrated.
    scale : Tensor, shape (D,)
        Standard deviations of recorded states.
    """

    recorded: str
    unseen: bool
    agents: list[str]
    windows: EpisodeWindows
    predicted: Tensor
    half_width: Tensor | None
    scale: Tensor

    def episodes(self) -> list[Episode]:
        """Return the first window of each of the first agents."""
        episodes = []
        for agent in list(dict.fromkeys(self.agents))[:_MAX_AGENTS]:
            row = self.agents.index(agent)
            steps, start = int(self.windows.steps[row]), self.windows.start[row][None]
            target = torch.where(self.windows.observed_mask()[row], self.windows.target[row], torch.nan)
            mean, recorded = (torch.cat((start, values[:steps])).numpy() for values in (self.predicted[row], target))
            half = self.half_width
            width = None if half is None else torch.cat((torch.zeros_like(start), half[row, :steps])).numpy()
            elapsed = torch.cat((torch.zeros(1), self.windows.elapsed()[row, :steps])).numpy()
            episodes.append(Episode(agent, elapsed, mean, recorded, width))
        return episodes

    def curves(self) -> list[Horizon]:
        """Return errors by horizon for every agent, or for all together if there are many."""
        names = list(dict.fromkeys(self.agents))
        if len(names) > _MAX_AGENTS:
            return [self._curve("all agents", list(range(len(self.agents))))]
        return [
            self._curve(f"agent {name}", [row for row, agent in enumerate(self.agents) if agent == name])
            for name in names
        ]

    def _curve(self, label: str, rows: list[int]) -> Horizon:
        valid = self.windows.observed_mask()[rows]
        valid = valid[:, : int(self.windows.steps[rows].max())]
        error = self.predicted[rows, : valid.shape[1]] - self.windows.target[rows, : valid.shape[1]]
        count = valid.sum((0, 2))

        def mean(values: Tensor) -> Tensor:
            """Mean over windows and observed coordinates, (E, H, D) -> (H,)."""
            return torch.where(valid, values, 0.0).sum((0, 2)) / count

        rmse = mean((error / self.scale).square()).sqrt().numpy()
        if self.half_width is None or not self.unseen:
            return Horizon(label, rmse, None)
        inside = (error.abs() <= self.half_width[rows, : valid.shape[1]]).double()
        return Horizon(label, rmse, mean(inside).numpy())


def compare_rollouts(folder: Path, simulator: PersonalizedSimulator, level: float) -> ComparedRollouts | None:
    """Predict the run's test trajectories, or the ends of its training trajectories if it had no test trajectories.

    Parameters
    ----------
    folder : Path
        Run folder.
    simulator : PersonalizedSimulator
    level : float
        Level of the intervals.

    Returns
    -------
    ComparedRollouts or None
        None if all trajectories are too short.
    """
    path = folder / PROVENANCE
    test = read_json(path)["data"].get("test_path") if path.is_file() else None
    recorded, trajectories, unseen = "the ends of recorded trajectories", simulator.trajectories, False
    start: Tensor | None = trajectories.tail_starts(_TAIL)
    if test is not None and Path(test).is_file():
        recorded, trajectories, unseen = "test trajectories", read_like(simulator.schema, Path(test)), True
        start = None
    per_agent = _MAX_EPISODES if trajectories.num_agents <= _MAX_AGENTS else 1
    windows = EpisodeWindows.cut(trajectories, start, HORIZON).first_of_each(per_agent, _MAX_WINDOWS)
    if not len(windows.steps):
        return None
    windows = windows.trimmed()
    labels = [trajectories.agent_ids[agent] for agent in windows.agent.tolist()]
    index, population = simulator.population.index(labels), simulator.population
    half = None
    if simulator.calibration is not None:
        paths = windows.start, windows.action
        spread = rollout_spread(population, simulator.trajectories, index, *paths, duration=windows.duration)
        half = simulator.calibration.half_width_after(spread, windows.elapsed(), level)
    predicted = predict(population.simulator, index, windows)
    scale = population.simulator.state_encoder.state_std
    return ComparedRollouts(recorded, unseen, list(map(str, labels)), windows, predicted, half, scale)
