"""Aggregates results over seeds, and ranks methods."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import NamedTuple

from persim_lightning.benchmark.results import CellResult

OURS = "persim"
# Plans on the true dynamics, so it is no competitor.
REFERENCE = "true-env"
# Learners on data from PerSim's simulators, and the same learners on recorded data of one agent or all agents.
AUGMENTED = {"persim-bcq": ("bcq-a", "bcq-p"), "persim-cql": ("cql-a", "cql-p")}


class Score(NamedTuple):
    """A mean and its standard deviation; NaN if the latter is undefined."""

    mean: float
    std: float

    @classmethod
    def over_seeds(cls, means: Sequence[float], within: float) -> Score:
        """Aggregate the means of several seeds; with one seed, `within` is the standard deviation."""
        if len(means) == 1:
            return cls(means[0], within)
        mean = fmean(means)
        # With an infinite error the standard deviation is undefined.
        return cls(mean, pstdev(means) if math.isfinite(mean) else math.nan)


@dataclass(frozen=True)
class MethodScores:
    """Scores of one method on one data set.

    Attributes
    ----------
    environment, dataset, method, label : str
        The label includes the name of the method's YAML if another method has the same label.
    agents, seeds : list of int
    episodes : int
        Number of episodes of every agent under a seed; the minimum over seeds.
    spread_over : str
        "seeds" if a method of the environment has several seeds, else "episodes": what standard deviations of returns
        are taken over.
    returns : list of Score
        By agent.
    episode_returns : list of list of list of float
        By seed, agent and episode.
    rmse : list of Score, or None
        By agent; the standard deviation of a single seed is NaN.
    r2 : list of float, or None
        By agent, the mean over seeds.
    """

    environment: str
    dataset: str
    method: str
    label: str
    agents: list[int]
    seeds: list[int]
    episodes: int
    spread_over: str
    returns: list[Score]
    episode_returns: list[list[list[float]]]
    rmse: list[Score] | None
    r2: list[float] | None


def method_scores(results: Sequence[CellResult]) -> list[MethodScores]:
    """Aggregate the seeds of every method on every data set.

    Results must be sorted, so that those of a data set are adjacent.
    """
    groups: dict[tuple[str, str | None, str], dict[int, CellResult]] = {}
    for result in results:
        # Planning on the true dynamics does not depend on the data set, so its seeds are grouped over data sets.
        dataset = None if result.method == REFERENCE else result.dataset
        groups.setdefault((result.environment, dataset, result.method), {}).setdefault(result.seed, result)
    labels = {result.method: result.label for result in results}
    shared = {label for label, count in Counter(labels.values()).items() if count > 1}
    # Use one kind of standard deviation in all tables of an environment.
    several = {environment for (environment, _, _), seeds in groups.items() if len(seeds) > 1}
    return [
        _aggregate(list(seeds.values()), shared, "seeds" if environment in several else "episodes")
        for (environment, _, _), seeds in groups.items()
    ]


def _aggregate(seeds: list[CellResult], shared: set[str], spread_over: str) -> MethodScores:
    first = seeds[0]
    seeds = sorted(seeds, key=lambda entry: entry.seed)
    label = f"{first.label} ({first.method})" if first.label in shared else first.label
    indices = range(len(first.agents))
    rmse, r2 = None, None
    if all(entry.rmse is not None and entry.r2 is not None for entry in seeds):
        rmse = [Score.over_seeds([(entry.rmse or [])[index] for entry in seeds], math.nan) for index in indices]
        r2 = [fmean((entry.r2 or [])[index] for entry in seeds) for index in indices]
    return MethodScores(
        *(first.environment, first.dataset, first.method, label, first.agents),
        seeds=[entry.seed for entry in seeds],
        episodes=min(entry.episodes for entry in seeds),
        spread_over=spread_over,
        returns=[
            Score.over_seeds(
                [_mean(entry.returns[index]) for entry in seeds],
                _spread(first.returns[index]) if spread_over == "episodes" else math.nan,
            )
            for index in indices
        ],
        episode_returns=[entry.returns for entry in seeds],
        rmse=rmse,
        r2=r2,
    )


def on_same_episodes(first: MethodScores, second: MethodScores, index: int) -> tuple[Score, Score] | None:
    """Compare the returns of two methods for one agent over the seeds and first episodes that both ran.

    Episodes of a seed start from the same states for every method. Means over different numbers of episodes would
    compare initial states too. Returns None if the methods share no seed, or one ran no episodes.
    """
    shared = [seed for seed in first.seeds if seed in second.seeds]
    if not shared or not (plays(first) and plays(second)):
        return None
    returns = [[entry.episode_returns[entry.seeds.index(seed)][index] for seed in shared] for entry in (first, second)]
    counts = [min(len(one), len(other)) for one, other in zip(*returns, strict=True)]
    common = [[values[:count] for values, count in zip(seeds, counts, strict=True)] for seeds in returns]
    one, other = (Score.over_seeds([fmean(values) for values in seeds], _spread(seeds[0])) for seeds in common)
    return one, other


def plays(scores: MethodScores) -> bool:
    """Whether a method runs episodes; others only predict."""
    return scores.episodes > 0


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan


def _spread(values: list[float]) -> float:
    return pstdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan


def competes(scores: MethodScores) -> bool:
    """Whether PerSim is compared with a method: planners and learners on recorded data."""
    return scores.method != REFERENCE and scores.method not in AUGMENTED


def goodness_of_return(scores: MethodScores, index: int) -> float:
    """Mean return; higher is better; -inf if it is not finite."""
    return finite_or_worst(scores.returns[index])


def finite_or_worst(score: Score) -> float:
    """Mean of a return, or -inf if it is not finite."""
    return score.mean if math.isfinite(score.mean) else -math.inf


def goodness_of_rmse(scores: MethodScores, index: int) -> float:
    """Negative RMSE; higher is better; -inf for methods that do not predict or whose prediction diverged."""
    value = math.inf if scores.rmse is None else scores.rmse[index].mean
    return -value if math.isfinite(value) else -math.inf


def best_of(
    rivals: Sequence[MethodScores], index: int, goodness: Callable[[MethodScores, int], float]
) -> MethodScores | None:
    """Find the best method for one agent, the first one in a tie; None if all are -inf."""
    best = max(rivals, key=lambda entry: goodness(entry, index), default=None)
    return best if best is not None and goodness(best, index) > -math.inf else None
