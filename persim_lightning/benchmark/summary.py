"""Counts the data sets and agents on which PerSim is best."""

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
    finite_or_worst,
    goodness_of_return,
    goodness_of_rmse,
    on_same_episodes,
    plays,
)

_RMSE, _RETURN, _SAME = "rmse", "return", "return_on_same_episodes"


def summarize(scores: Sequence[MethodScores]) -> dict[str, Any]:
    """Count (data set, agent) pairs, over all environments and in each; ready for JSON.

    A method whose prediction diverged, or whose return is not finite, counts as the worst.
    """
    environments = list(dict.fromkeys(entry.environment for entry in scores))

    def by_environment(count: Callable[[Sequence[MethodScores]], dict[str, int]]) -> dict[str, Any]:
        each = {name: count([entry for entry in scores if entry.environment == name]) for name in environments}
        return {**count(scores), "environments": each}

    return {
        _RMSE: by_environment(partial(_rank, kind=_RMSE)),
        _RETURN: by_environment(partial(_rank, kind=_RETURN)),
        _SAME: by_environment(_rank_on_same_episodes),
        "simulated_data": {
            f"{augmented} > {plain}": by_environment(partial(_compare_pair, first=augmented, second=plain))
            for augmented, rivals in AUGMENTED.items()
            for plain in rivals
        },
    }


def _rank(scores: Sequence[MethodScores], kind: str) -> dict[str, int]:
    """Count where PerSim has a rival, is best (shared or alone), and is within one std of the best."""
    goodness = goodness_of_rmse if kind == _RMSE else goodness_of_return
    cells = best = alone = near = 0
    for ours, others in _comparisons(scores, predicting=kind == _RMSE):
        for index in range(len(ours.agents)):
            cells += 1
            winner = best_of([ours, *others], index, goodness)
            if winner is None:
                continue
            value, top = goodness(ours, index), goodness(winner, index)
            best += value == top
            alone += all(goodness(rival, index) < value for rival in others)
            score = winner.returns[index] if kind == _RETURN else (winner.rmse or [])[index]
            near += value >= top - _std(score)
    return {"cells": cells, "best": best, "alone": alone, "best_or_within_std": near}


def _rank_on_same_episodes(scores: Sequence[MethodScores]) -> dict[str, int]:
    """Count as :func:`_rank` does for returns, but compare each rival over the episodes that both ran."""
    cells = best = alone = near = 0
    for ours, others in _comparisons(scores, predicting=False):
        for index in range(len(ours.agents)):
            pairs = [pair for rival in others if (pair := on_same_episodes(ours, rival, index)) is not None]
            if not pairs:
                continue
            ranks = [(finite_or_worst(our), finite_or_worst(rival), _std(rival)) for our, rival in pairs]
            cells += 1
            if all(our == -math.inf for our, _, _ in ranks):
                continue
            best += all(our >= rival for our, rival, _ in ranks)
            alone += all(our > rival for our, rival, _ in ranks)
            near += all(our >= rival - std for our, rival, std in ranks)
    return {"cells": cells, "best": best, "alone": alone, "best_or_within_std": near}


def _comparisons(scores: Sequence[MethodScores], predicting: bool) -> Iterator[tuple[MethodScores, list[MethodScores]]]:
    """Yield PerSim and its rivals on every data set."""
    for group in _data_sets(scores):
        rivals = [
            entry for entry in group if competes(entry) and (entry.rmse is not None if predicting else plays(entry))
        ]
        ours = next((entry for entry in rivals if entry.method == OURS), None)
        if ours is not None and len(rivals) > 1:
            yield ours, [entry for entry in rivals if entry is not ours]


def _std(score: Score) -> float:
    return 0.0 if math.isnan(score.std) else score.std


def _compare_pair(scores: Sequence[MethodScores], first: str, second: str) -> dict[str, int]:
    """Count how often the first of two methods has the higher return."""
    cells = better = 0
    for group in _data_sets(scores):
        named = {entry.method: entry for entry in group}
        if first in named and second in named:
            for index in range(len(named[first].agents)):
                cells += 1
                better += goodness_of_return(named[first], index) > goodness_of_return(named[second], index)
    return {"cells": cells, "better": better}


def _data_sets(scores: Sequence[MethodScores]) -> Iterator[list[MethodScores]]:
    for _, group in itertools.groupby(scores, lambda entry: (entry.environment, entry.dataset)):
        yield list(group)


def summary_lines(summary: dict[str, Any], scores: Sequence[MethodScores]) -> list[str]:
    """Describe the counts in sentences, without methods that were not run."""
    labels = {entry.method: entry.label for entry in scores}
    lines = []
    kinds = {
        _RMSE: "lowest prediction error",
        _RETURN: "highest return",
        _SAME: "highest return on the episodes that it and each rival both ran",
    }
    for kind, criterion in kinds.items():
        counts = summary[kind]
        if counts["cells"]:
            near = f"{counts['best_or_within_std']}{_by_environment(counts, 'best_or_within_std')}"
            lines.append(
                f"{labels[OURS]} has the {criterion}, alone or shared, on {counts['best']} of {counts['cells']} "
                f"(data set, agent) pairs{_by_environment(counts, 'best')}, alone on {counts['alone']}, and is the "
                f"best or within one std of it on {near}."
            )
    for pair, counts in summary["simulated_data"].items():
        if counts["cells"]:
            first, second = (labels[name] for name in pair.split(" > "))
            sentence = f"{first} has a higher return than {second} on {counts['better']} of {counts['cells']}"
            lines.append(f"{sentence}{_by_environment(counts, 'better')}.")
    return lines


def _by_environment(counts: dict[str, Any], name: str) -> str:
    parts = [
        f"{environment} {entry[name]} of {entry['cells']}"
        for environment, entry in counts["environments"].items()
        if entry["cells"]
    ]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""
