"""The prediction protocol: open-loop rollouts of recorded actions, scored per episode.

Each test episode starts at its true state at t = 10; the recorded actions are applied and the predicted states compared
with the recorded ones for t = 11 … 60, fewer where the episode ended. The ensemble's prediction is the mean of its
members' independent rollouts. (PerSim, section 5 and appendix; https://arxiv.org/abs/2102.06961.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories

START = 10
HORIZON = 50
MIN_STEPS = 4
# Episodes rolled out together.
_PART = 4096


class OpenLoopSimulator(Protocol):
    """A simulator of a population that predicts rollouts: PerSim's networks, or a baseline.

    Attributes
    ----------
    delta_rms : Tensor, shape (D,)
        Root mean square of the training set's Δs, on the device of the rollouts.
    """

    delta_rms: Tensor

    @property
    def rollout(self) -> Callable[..., Tensor]:
        """Agents (B,), initial states (B, D), actions (B, H)|(B, H, A) -> trajectories (M, B, H+1, D).

        Simulators of uneven tables take durations (B, H) as a fourth argument.
        """
        ...


@dataclass(frozen=True)
class EpisodeWindows:
    """The scored part of test episodes, padded to one length.

    Attributes
    ----------
    agent : Tensor, shape (E,), int64
        Index of the episode's agent among the *test table's* agents.
    start : Tensor, shape (E, D)
        True state at t = 10.
    action : Tensor, shape (E, H) or (E, H, A)
        Recorded actions; zeros after the end of the episode.
    target : Tensor, shape (E, H, D)
        True states at t = 11 …; zeros after the end of the episode.
    steps : Tensor, shape (E,), int64
        Number of scored steps, 0 … H.
    duration : Tensor, shape (E, H), or None
        Base steps from each state to the next; None if all are 1.
    observed : Tensor, shape (E, H, D), bool, or None
        Coordinates of the targets that were observed; None if all were.
    minimum : int
        Smallest number of steps of an episode that is scored.
    """

    agent: Tensor
    start: Tensor
    action: Tensor
    target: Tensor
    steps: Tensor
    duration: Tensor | None = None
    observed: Tensor | None = None
    minimum: int = MIN_STEPS

    @classmethod
    def cut(
        cls, trajectories: Trajectories, start: int | Tensor | None = None, horizon: int = HORIZON
    ) -> EpisodeWindows:
        """Cut one window out of each trajectory.

        Parameters
        ----------
        trajectories : Trajectories
        start : int or Tensor, shape (E,), optional
            First step of the windows; :data:`START` by default. Episodes of a user's table that are too short for it
            are scored from their first row on.
        horizon : int
            Largest number of steps; trajectories that end before `start` give windows of 0 steps.
        """
        minimum = MIN_STEPS
        if start is None:
            start = START
            if trajectories.schema.encoded:
                start = torch.where(trajectories.lengths - 1 - START >= MIN_STEPS, START, 0)
                minimum = 1
        steps = (trajectories.lengths - 1 - start).clamp(0, horizon)
        first = torch.minimum(trajectories.offsets[:-1] + start, trajectories.offsets[1:] - 1)
        offset = torch.arange(horizon)
        valid = offset < steps[:, None]
        rows = torch.where(valid, first[:, None] + offset, first[:, None])
        action = trajectories.action[rows]
        after = torch.where(valid, rows + 1, rows)
        target = trajectories.state[after]
        duration = None if trajectories.duration is None else trajectories.duration[rows] * valid
        observed = None if trajectories.observed is None else trajectories.observed[after] & valid[..., None]
        return cls(
            agent=trajectories.agent,
            start=trajectories.state[first],
            action=action * valid.view(*valid.shape, *[1] * (action.ndim - 2)),
            target=target * valid[..., None],
            steps=steps,
            duration=duration,
            observed=observed,
            minimum=minimum,
        )

    def first_of_each(self, count: int, limit: int) -> EpisodeWindows:
        """Select the first `count` windows of every agent with at least one step, agent by agent, at most `limit`."""
        rows = (self.steps > 0).nonzero()[:, 0]
        rows = rows[self.agent[rows].argsort(stable=True)]
        _, sizes = self.agent[rows].unique_consecutive(return_counts=True)
        number = torch.arange(len(rows)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        return self.select(rows[number < count][:limit])

    def observed_mask(self) -> Tensor:
        """Return which coordinates of the targets were observed, shape (E, H, D), bool."""
        if self.observed is not None:
            return self.observed
        valid = torch.arange(self.target.shape[1], device=self.steps.device) < self.steps[:, None]
        return valid[..., None].expand_as(self.target)

    def elapsed(self) -> Tensor:
        """Return the base steps since the start, shape (E, H)."""
        if self.duration is None:
            return torch.arange(1.0, self.target.shape[1] + 1).expand(self.target.shape[:2])
        return self.duration.cumsum(1)

    def trimmed(self) -> EpisodeWindows:
        """Remove the steps that no window has."""
        horizon = int(self.steps.max())
        names = ("action", "target", "duration", "observed")
        cut: dict[str, Any] = {name: getattr(self, name) for name in names}
        shorter: dict[str, Any] = {name: None if value is None else value[:, :horizon] for name, value in cut.items()}
        return replace(self, **shorter)

    def select(self, index: Tensor) -> EpisodeWindows:
        return self._mapped(lambda value: value[index])

    def to(self, device: torch.device) -> EpisodeWindows:
        return self._mapped(lambda value: value.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> EpisodeWindows:
        """Change every tensor."""
        values: dict[str, Any] = vars(self)
        changed: Any = {name: change(value) if isinstance(value, Tensor) else value for name, value in values.items()}
        return EpisodeWindows(**changed)


class PredictionScores(NamedTuple):
    """Scores per test agent, each of shape (N,).

    Attributes
    ----------
    rmse : Tensor
        Mean over episodes of the root mean square error over steps and coordinates, in the units of the states.
    r2 : Tensor
        Median over episodes of the variance-weighted R². NaN only if an agent has no scored episode.
    scored, short, diverged : Tensor, int64
        Numbers of episodes: scored; skipped, because fewer than 4 steps (one of a user's table) can be compared; scored
        with a prediction that is not finite (RMSE inf, R² -inf).
    """

    rmse: Tensor
    r2: Tensor
    scored: Tensor
    short: Tensor
    diverged: Tensor

    def to_records(self, agent_ids: tuple[int | str, ...]) -> list[dict[str, Any]]:
        """Convert to one dict per agent, ready for JSON."""
        columns = {name: value.tolist() for name, value in self._asdict().items()}
        return [
            {"agent": label, **{name: values[row] for name, values in columns.items()}}
            for row, label in enumerate(agent_ids)
        ]


def restore_score(record: dict[str, Any], name: str) -> float:
    """Read `rmse` or `r2` from a record that went through JSON, which has no infinities and no NaN.

    Returns inf (RMSE) or -inf (R²) where a prediction diverged, and NaN where no episode was scored.
    """
    value = record[name]
    if value is not None:
        return float(value)
    if not record["scored"]:
        return math.nan
    return math.inf if name == "rmse" else -math.inf


class EpisodeScores(NamedTuple):
    """Scores of E episodes, each of shape (E,), float64.

    Attributes
    ----------
    rmse, r2 : Tensor
        Zero where the episode was not scored or its prediction diverged.
    scored, short, diverged : Tensor
        One or zero, as counted in :class:`PredictionScores`.
    """

    rmse: Tensor
    r2: Tensor
    scored: Tensor
    short: Tensor
    diverged: Tensor


def score_windows(predicted: Tensor, windows: EpisodeWindows) -> EpisodeScores:
    """Compare predicted states (E, H, D) with those of windows."""
    predicted, target, observed = predicted.double(), windows.target.double(), windows.observed_mask()
    error = torch.where(observed, predicted - target, 0.0).square()
    count = observed.sum(1)
    mean = torch.where(observed, target, 0.0).sum(1) / count.clamp(min=1)
    spread = torch.where(observed, target - mean[:, None], 0.0).square().sum(1)
    # A coordinate that never moves has weight zero in a variance-weighted mean.
    residual = torch.where(spread > 0, error.sum(1), 0.0).sum(-1)
    total = spread.sum(-1)
    perfect = torch.where(error.sum((1, 2)) > 0, 0.0, 1.0).double()
    rmse = (error.sum((1, 2)) / count.sum(-1).clamp(min=1)).sqrt()
    scored = observed.any(-1).sum(1) >= windows.minimum
    diverged = scored & ~torch.isfinite(rmse)
    finite = scored & ~diverged
    r2 = torch.where(total > 0, 1 - residual / total, perfect)
    return EpisodeScores(
        rmse=torch.where(finite, rmse, 0.0),
        r2=torch.where(finite, r2, 0.0),
        scored=scored.double(),
        short=(~scored).double(),
        diverged=diverged.double(),
    )


def combine_scores(episodes: EpisodeScores, agent: Tensor, num_agents: int) -> PredictionScores:
    """Scores per agent, from those of E episodes whose agents are `agent` (E,), int64."""
    infinite = torch.where(episodes.diverged > 0, torch.inf, 0.0)
    rmse, r2 = episodes.rmse + infinite, episodes.r2 - infinite
    order = agent.argsort(stable=True)
    order = order[episodes.scored[order] > 0]
    scored = torch.bincount(agent[order], minlength=num_agents)
    groups = order.split(scored.tolist())
    none = torch.zeros(num_agents, dtype=torch.float64, device=agent.device)
    return PredictionScores(
        rmse=torch.stack([rmse[group].mean() for group in groups]),
        r2=torch.stack([_median(r2[group]) for group in groups]),
        scored=scored,
        short=none.index_add(0, agent, episodes.short).long(),
        diverged=none.index_add(0, agent[order], episodes.diverged[order]).long(),
    )


def _median(values: Tensor) -> Tensor:
    """Return the median: the mean of the two middle values for an even count, NaN for no values."""
    if not len(values):
        return values.new_tensor(torch.nan)
    ordered = values.sort().values
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    # Compare first, so that equal infinities give this infinity.
    return low if low == high else (low + high) / 2


@torch.no_grad()
def predict(simulator: OpenLoopSimulator, agents: Tensor, windows: EpisodeWindows) -> Tensor:
    """Predict the scored states by the mean over ensemble members.

    Parameters
    ----------
    simulator : OpenLoopSimulator
    agents : Tensor, shape (E,), int64
        Index of each episode's agent in the *simulator's* population.
    windows : EpisodeWindows

    Returns
    -------
    Tensor, shape (E, H, D)
    """
    durations = () if windows.duration is None else (windows.duration,)
    return simulator.rollout(agents, windows.start, windows.action, *durations)[:, :, 1:].mean(0)


def score_predictions(simulator: OpenLoopSimulator, population: Tensor, test: Trajectories) -> PredictionScores:
    """Score all test episodes.

    Parameters
    ----------
    simulator : OpenLoopSimulator
    population : Tensor, shape (N,), int64
        Index of every agent of the test table in the *simulator's* population.
    test : Trajectories

    Returns
    -------
    PredictionScores
        On the CPU.
    """
    agents, device = population[test.agent], simulator.delta_rms.device
    return score_rollouts(lambda rows, windows: predict(simulator, agents[rows].to(device), windows), test, device)


def score_rollouts(
    rollout: Callable[[Tensor, EpisodeWindows], Tensor], test: Trajectories, device: torch.device | None = None
) -> PredictionScores:
    """Score all test episodes with any predictor of windows.

    Parameters
    ----------
    rollout : callable, (episodes (E',), their windows on `device`) -> predicted states (E', H, D)
    test : Trajectories
    device : torch.device, optional
        The CPU by default.
    """
    windows = EpisodeWindows.cut(test)
    parts = []
    for rows, window in window_parts(windows, torch.arange(len(windows.agent)), device or torch.device("cpu")):
        scores = score_windows(rollout(rows, window), window)
        parts.append(EpisodeScores(*(value.cpu() for value in scores)))
    return combine_scores(EpisodeScores(*map(torch.cat, zip(*parts, strict=True))), windows.agent, test.num_agents)


def window_parts(
    windows: EpisodeWindows, episodes: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, EpisodeWindows]]:
    """Some episodes (E',) and their windows on a device, a few thousand at a time to bound the memory of rollouts."""
    for rows in episodes.split(_PART):
        yield rows, windows.select(rows).to(device)
