"""Intervals of a fitted population: how wide they have to be, and how often they hold the truth."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from persim_lightning.adaptation.intervals import Calibration, drawn_factors, sampled_rollouts, spread
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.agent_posteriors import agent_posterior
from persim_lightning.evaluation.prediction import HORIZON, EpisodeWindows, predict
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.sampling import thinned

# Windows that intervals are calibrated on or judged by, and windows of one agent that they are judged by, at most.
_MAX_WINDOWS, _MAX_EPISODES = 1000, 40
COVERAGE_LEVELS = (0.8, 0.9, 0.95)


def believed_factors(population: FittedPopulation, recorded: Trajectories, agents: Tensor, tail: float = 0.0) -> Tensor:
    """Draws of agents' factors from :func:`agent_posterior`, shape (M, K, B, R)."""
    posterior = agent_posterior(population, recorded, agents, tail)
    return drawn_factors(posterior.mean, posterior.root)


def rollout_spread(
    population: FittedPopulation,
    recorded: Trajectories,
    agents: Tensor,
    states: Tensor,
    actions: Tensor,
    tail: float = 0.0,
    duration: Tensor | None = None,
) -> Tensor:
    """Spread of rollouts over members and over draws of agents' factors.

    Parameters
    ----------
    population : FittedPopulation
    recorded : Trajectories
        What is recorded of its agents.
    agents : Tensor, shape (B,), int64
        Indices in the population.
    states : Tensor, shape (B, D)
    actions : Tensor, shape (B, H) or (B, H, A)
    tail : float
        As for :func:`agent_posterior`.
    duration : Tensor, shape (B, H), optional
        Base steps from each state to the next.

    Returns
    -------
    Tensor, shape (B, H, D)
    """
    distinct, place = agents.unique(return_inverse=True)
    drawn = believed_factors(population, recorded, distinct, tail)[:, :, place]
    return spread(sampled_rollouts(population, drawn, states, actions, duration), population.simulator.delta_rms)


class _Errors(NamedTuple):
    """Errors (B, H, D) of rollouts, their spreads, which were recorded (B, H)|(B, H, D), and base steps (B, H)."""

    error: Tensor
    spread: Tensor
    valid: Tensor
    elapsed: Tensor | None


def _errors(
    population: FittedPopulation, recorded: Trajectories, agents: Tensor, windows: EpisodeWindows, tail: float = 0.0
) -> _Errors | None:
    """Roll out windows of agents (B,), given by their indices in the population; None without windows."""
    if not len(windows.steps):
        return None
    windows = windows.trimmed()
    valid = torch.arange(windows.target.shape[1]) < windows.steps[:, None]
    predicted = predict(population.simulator, agents, windows)
    spreads = rollout_spread(population, recorded, agents, windows.start, windows.action, tail, windows.duration)
    elapsed = None if windows.duration is None else windows.duration.cumsum(1)
    mask = valid if windows.observed is None else windows.observed
    return _Errors(predicted - windows.target, spreads, mask, elapsed)


def calibrate(population: FittedPopulation, recorded: Trajectories, tail: float) -> Calibration | None:
    """Compare rollouts of held-out tails with the recorded states.

    Parameters
    ----------
    population : FittedPopulation
    recorded : Trajectories
        Training trajectories.
    tail : float
        Share of every trajectory, at its tail, that it was not trained on.

    Returns
    -------
    Calibration or None
        None if no trajectory is long enough for a tail.
    """
    windows = EpisodeWindows.cut(recorded, recorded.tail_starts(tail), HORIZON)
    scored = (windows.steps > 0).nonzero()[:, 0]
    windows = windows.select(thinned(scored, _MAX_WINDOWS))
    errors = _errors(population, recorded, windows.agent, windows, tail)
    return None if errors is None else Calibration.of(*errors)


def coverage(
    population: FittedPopulation, recorded: Trajectories, calibration: Calibration, test: Trajectories
) -> list[dict[str, Any]]:
    """How often intervals hold the truth, along the prediction protocol's rollouts of test episodes.

    Parameters
    ----------
    population : FittedPopulation
    recorded : Trajectories
        Training trajectories.
    calibration : Calibration
    test : Trajectories
        Trajectories of agents of the population; uses the first 40 episodes of each, and at most 1,000 in total.

    Returns
    -------
    list of dict
        For every agent the shares of (step, coordinate) pairs inside, by level, such as `0.9`; agents of which no test
        episode reaches the first scored step are left out.
    """
    each = min(_MAX_EPISODES, max(1, _MAX_WINDOWS // test.num_agents))
    windows = EpisodeWindows.cut(test).first_of_each(each, _MAX_WINDOWS)
    errors = _errors(population, recorded, population.index(test.agent_ids)[windows.agent], windows)
    if errors is None:
        return []
    horizon = errors.error.shape[1]
    elapsed = torch.arange(1, horizon + 1.0) if errors.elapsed is None else errors.elapsed
    valid = (errors.valid if errors.valid.ndim == 3 else errors.valid[..., None]).expand_as(errors.error)
    inside = {
        level: (errors.error.abs() <= calibration.half_width_after(errors.spread, elapsed, level)) & valid
        for level in COVERAGE_LEVELS
    }
    records: list[dict[str, Any]] = []
    for row, label in enumerate(test.agent_ids):
        own = windows.agent == row
        if bool(own.any()):
            asked = max(1, int(valid[own].sum()))
            shares = {f"{level:g}": float(hit[own].sum()) / asked for level, hit in inside.items()}
            records.append({"agent": label, "episodes": int(own.sum()), **shares})
    return records
