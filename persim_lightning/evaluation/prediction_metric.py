"""The prediction protocol over several processes: a torchmetrics metric whose ranks each score some episodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.prediction import (
    EpisodeScores,
    EpisodeWindows,
    OpenLoopSimulator,
    PredictionScores,
    combine_scores,
    predict,
    score_windows,
    window_parts,
)


class PredictionMetric(Metric):
    """Accumulates episode scores in one slot per episode, so that ranks may each score some of them.

    States are sums over slots that only one rank fills. That stays correct when a rank has no episode at all, where
    concatenated lists would deadlock, and shows when an episode was counted twice.

    Parameters
    ----------
    agent : Tensor, shape (E,), int64
        Agent of every episode, on all ranks alike.
    num_agents : int
    """

    full_state_update = False
    rmse: Tensor
    r2: Tensor
    scored: Tensor
    short: Tensor
    diverged: Tensor

    def __init__(self, agent: Tensor, num_agents: int) -> None:
        super().__init__()
        self.agent, self.num_agents = agent.cpu(), num_agents
        for name in EpisodeScores._fields:
            self.add_state(name, torch.zeros(len(agent), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, episode: Tensor, predicted: Tensor, windows: EpisodeWindows) -> None:
        """Score a batch of episodes.

        Parameters
        ----------
        episode : Tensor, shape (B,), int64
            Slots.
        predicted : Tensor, shape (B, H, D)
        windows : EpisodeWindows
            Windows of these episodes.
        """
        for name, value in score_windows(predicted, windows)._asdict().items():
            getattr(self, name)[episode] += value

    def compute(self) -> PredictionScores:
        """Scores per agent.

        Raises
        ------
        RuntimeError
            If an episode was scored twice or never.
        """
        if not bool(((self.scored + self.short) == 1).all()):
            raise RuntimeError("every episode must be scored exactly once, over all ranks together")
        episodes = EpisodeScores(*(getattr(self, name) for name in EpisodeScores._fields))
        return combine_scores(episodes, self.agent.to(self.rmse.device), self.num_agents)


def score_share(simulator: OpenLoopSimulator, population: Tensor, test: Trajectories, share: slice) -> PredictionScores:
    """Score a share of the test episodes, and combine it with the scores of other ranks.

    Parameters
    ----------
    simulator : OpenLoopSimulator
    population : Tensor, shape (N,), int64
        Index of every agent of the test table in the *simulator's* population.
    test : Trajectories
    share : slice
        Episodes that this rank scores.

    Returns
    -------
    PredictionScores
        On the CPU; gathered over ranks where torch.distributed runs.
    """
    agents, device = population[test.agent], simulator.delta_rms.device
    windows = EpisodeWindows.cut(test)
    metric = PredictionMetric(windows.agent, test.num_agents).to(device)
    for rows, window in window_parts(windows, torch.arange(len(windows.agent))[share], device):
        predicted = predict(simulator, agents[rows].to(device), window)
        metric.update(rows.to(device), predicted, window)
    scores: PredictionScores = metric.compute()
    return PredictionScores(*(value.cpu() for value in scores))
