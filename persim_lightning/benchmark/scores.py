"""What methods come to over seeds, and which of them compete with each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import NamedTuple

from persim_lightning.benchmark.results import CellResult

OURS = "persim"
# It knows the real dynamics, so it competes with nobody.
REFERENCE = "true-env"
# Learners that PerSim's simulators feed, and the same learners on recorded data: one agent's, or the population's.
AUGMENTED = {"persim-bcq": ("bcq-a", "bcq-p"), "persim-cql": ("cql-a", "cql-p")}


class Score(NamedTuple):
    """A mean and its standard deviation; NaN where there is no spread to be known."""

    mean: float
    std: float

    @classmethod
    def over_seeds(cls, means: Sequence[float], within: float) -> Score:
        """Of the means under several seeds; under one, `within` says how far its values are spread."""
        if len(means) == 1:
            return cls(means[0], within)
        mean = fmean(means)
        # With an infinite error among them there is no spread.
        return cls(mean, pstdev(means) if math.isfinite(mean) else math.nan)


@dataclass(frozen=True)
class MethodScores:
    """One method on one data set.

    Attributes
    ----------
    environment, dataset, method, label : str
        The label names the method's YAML where another method has the same.
    agents, seeds : list of int
    episodes : int
        Of every agent under a seed, the fewest of all seeds.
    spread_over : str
        What the deviations of returns are over: "seeds", or "episodes" where no method of the environment has more than
        one seed.
    returns : list of Score
        By agent.
    episode_returns : list of list of list of float
        By seed, agent and episode.
    rmse : list of Score, or None
        By agent; a single seed has no spread.
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
    """Gather the seeds of every method on every data set; results lie in order, those of a data set together."""
    groups: dict[tuple[str, str | None, str], dict[int, CellResult]] = {}
    for result in results:
        # The true dynamics learn nothing from a data set, so their seeds belong together wherever they were run.
        dataset = None if result.method == REFERENCE else result.dataset
        groups.setdefault((result.environment, dataset, result.method), {}).setdefault(result.seed, result)
    labels = {result.method: result.label for result in results}
    shared = {label for label, count in Counter(labels.values()).items() if count > 1}
    # A spread means the same throughout an environment's tables: where a method has several seeds, it is theirs.
    several = {environment for (environment, _, _), seeds in groups.items() if len(seeds) > 1}
    return [
        _gather(list(seeds.values()), shared, "seeds" if environment in several else "episodes")
        for (environment, _, _), seeds in groups.items()
    ]


def _gather(seeds: list[CellResult], shared: set[str], spread_over: str) -> MethodScores:
    first = seeds[0]
    seeds = sorted(seeds, key=lambda own: own.seed)
    label = f"{first.label} ({first.method})" if first.label in shared else first.label
    places = range(len(first.agents))
    rmse, r2 = None, None
    if all(own.rmse is not None and own.r2 is not None for own in seeds):
        rmse = [Score.over_seeds([(own.rmse or [])[place] for own in seeds], math.nan) for place in places]
        r2 = [fmean((own.r2 or [])[place] for own in seeds) for place in places]
    return MethodScores(
        *(first.environment, first.dataset, first.method, label, first.agents),
        seeds=[own.seed for own in seeds],
        episodes=min(own.episodes for own in seeds),
        spread_over=spread_over,
        returns=[
            Score.over_seeds(
                [_mean(own.returns[place]) for own in seeds],
                _spread(first.returns[place]) if spread_over == "episodes" else math.nan,
            )
            for place in places
        ],
        episode_returns=[own.returns for own in seeds],
        rmse=rmse,
        r2=r2,
    )


def on_same_episodes(first: MethodScores, second: MethodScores, place: int) -> tuple[Score, Score] | None:
    """Returns of two methods for one agent, over the seeds and the first episodes that both have played.

    Episodes of a seed begin in the same states whoever plays them, however many there are: means over different numbers
    of them would compare starts, too. None where the methods have no seed in common, or one plays none.
    """
    shared = [seed for seed in first.seeds if seed in second.seeds]
    if not shared or not (plays(first) and plays(second)):
        return None
    played = [[own.episode_returns[own.seeds.index(seed)][place] for seed in shared] for own in (first, second)]
    counts = [min(len(one), len(other)) for one, other in zip(*played, strict=True)]
    cut = [[values[:count] for values, count in zip(own, counts, strict=True)] for own in played]
    one, other = (Score.over_seeds([fmean(values) for values in own], _spread(own[0])) for own in cut)
    return one, other


def plays(scores: MethodScores) -> bool:
    """Whether a method has a policy; others only predict."""
    return scores.episodes > 0


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan


def _spread(values: list[float]) -> float:
    return pstdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan


def competes(scores: MethodScores) -> bool:
    """Whether a method is among those that PerSim is compared with: planners and learners on recorded data."""
    return scores.method != REFERENCE and scores.method not in AUGMENTED


def goodness_of_return(scores: MethodScores, place: int) -> float:
    """Higher is better; -inf for a return that is no number."""
    return worth(scores.returns[place])


def worth(score: Score) -> float:
    """Of a return: its mean, -inf where that is no number."""
    return score.mean if math.isfinite(score.mean) else -math.inf


def goodness_of_rmse(scores: MethodScores, place: int) -> float:
    """Higher is better; -inf for methods that do not predict, or whose prediction diverged."""
    value = math.inf if scores.rmse is None else scores.rmse[place].mean
    return -value if math.isfinite(value) else -math.inf


def best_of(
    rivals: Sequence[MethodScores], place: int, goodness: Callable[[MethodScores, int], float]
) -> MethodScores | None:
    """The best method for one agent, the first of several; None where all have failed."""
    best = max(rivals, key=lambda own: goodness(own, place), default=None)
    return best if best is not None and goodness(best, place) > -math.inf else None
