"""On how many data sets and agents PerSim is ahead."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from persim_lightning.benchmark.scores import (
    AUGMENTED,
    OURS,
    MethodScores,
    Score,
    best_of,
    competes,
    goodness_of_return,
    goodness_of_rmse,
    on_same_episodes,
    plays,
    worth,
)

_RMSE, _RETURN, _SAME = "rmse", "return", "return_on_same_episodes"


def summarize(scores: Sequence[MethodScores]) -> dict[str, Any]:
    """Counts over (data set, agent), of all environments and of each; ready for JSON.

    A method whose prediction diverged, or whose return is no number, counts as the worst.
    """
    environments = list(dict.fromkeys(own.environment for own in scores))

    def counted(count: Callable[[Sequence[MethodScores]], dict[str, int]]) -> dict[str, Any]:
        each = {name: count([own for own in scores if own.environment == name]) for name in environments}
        return {**count(scores), "environments": each}

    return {
        _RMSE: counted(partial(_standing, kind=_RMSE)),
        _RETURN: counted(partial(_standing, kind=_RETURN)),
        _SAME: counted(_standing_on_same_episodes),
        "simulated_data": {
            f"{augmented} > {plain}": counted(partial(_duel, first=augmented, second=plain))
            for augmented, rivals in AUGMENTED.items()
            for plain in rivals
        },
    }


def _standing(scores: Sequence[MethodScores], kind: str) -> dict[str, int]:
    """Where PerSim has a rival: how often it is best (with others or alone), and within one std of the best."""
    goodness = goodness_of_rmse if kind == _RMSE else goodness_of_return
    cells = best = alone = near = 0
    for ours, others in _contests(scores, predicting=kind == _RMSE):
        for place in range(len(ours.agents)):
            cells += 1
            winner = best_of([ours, *others], place, goodness)
            if winner is None:
                continue
            own, top = goodness(ours, place), goodness(winner, place)
            best += own == top
            alone += all(goodness(rival, place) < own for rival in others)
            score = winner.returns[place] if kind == _RETURN else (winner.rmse or [])[place]
            near += own >= top - _std(score)
    return {"cells": cells, "best": best, "alone": alone, "best_or_within_std": near}


def _standing_on_same_episodes(scores: Sequence[MethodScores]) -> dict[str, int]:
    """As :func:`_standing` of returns, but each rival is compared over the episodes that both have played."""
    cells = best = alone = near = 0
    for ours, others in _contests(scores, predicting=False):
        for place in range(len(ours.agents)):
            pairs = [pair for rival in others if (pair := on_same_episodes(ours, rival, place)) is not None]
            if not pairs:
                continue
            ranks = [(worth(own), worth(rival), _std(rival)) for own, rival in pairs]
            cells += 1
            if all(own == -math.inf for own, _, _ in ranks):
                continue
            best += all(own >= rival for own, rival, _ in ranks)
            alone += all(own > rival for own, rival, _ in ranks)
            near += all(own >= rival - std for own, rival, std in ranks)
    return {"cells": cells, "best": best, "alone": alone, "best_or_within_std": near}


def _contests(scores: Sequence[MethodScores], predicting: bool) -> Iterator[tuple[MethodScores, list[MethodScores]]]:
    """PerSim and its rivals on every data set that both have."""
    for group in _data_sets(scores):
        rivals = [own for own in group if competes(own) and (own.rmse is not None if predicting else plays(own))]
        ours = next((own for own in rivals if own.method == OURS), None)
        if ours is not None and len(rivals) > 1:
            yield ours, [own for own in rivals if own is not ours]


def _std(score: Score) -> float:
    return 0.0 if math.isnan(score.std) else score.std


def _duel(scores: Sequence[MethodScores], first: str, second: str) -> dict[str, int]:
    """How often the first of two methods has the higher return."""
    cells = better = 0
    for group in _data_sets(scores):
        named = {own.method: own for own in group}
        if first in named and second in named:
            for place in range(len(named[first].agents)):
                cells += 1
                better += goodness_of_return(named[first], place) > goodness_of_return(named[second], place)
    return {"cells": cells, "better": better}


def _data_sets(scores: Sequence[MethodScores]) -> Iterator[list[MethodScores]]:
    for _, group in itertools.groupby(scores, lambda own: (own.environment, own.dataset)):
        yield list(group)


def summary_lines(summary: dict[str, Any], scores: Sequence[MethodScores]) -> list[str]:
    """The counts in words, leaving out what has not been run."""
    labels = {own.method: own.label for own in scores}
    lines = []
    kinds = {
        _RMSE: "lowest prediction error",
        _RETURN: "highest return",
        _SAME: "highest return on the episodes that it and each rival both played",
    }
    for kind, words in kinds.items():
        counts = summary[kind]
        if counts["cells"]:
            lines.append(
                f"{labels[OURS]} has the {words}, alone or shared, on {counts['best']} of {counts['cells']} (data set, "
                f"agent) pairs{_by_environment(counts, 'best')}, alone on {counts['alone']}, and is the best or within "
                f"one std of it on {counts['best_or_within_std']}{_by_environment(counts, 'best_or_within_std')}."
            )
    for pair, counts in summary["simulated_data"].items():
        if counts["cells"]:
            first, second = (labels[name] for name in pair.split(" > "))
            words = f"{first} has a higher return than {second} on {counts['better']} of {counts['cells']}"
            lines.append(f"{words}{_by_environment(counts, 'better')}.")
    return lines


def _by_environment(counts: dict[str, Any], name: str) -> str:
    parts = [
        f"{environment} {own[name]} of {own['cells']}"
        for environment, own in counts["environments"].items()
        if own["cells"]
    ]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""
