"""The paper's Tables 1 to 3 in Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from persim_lightning.benchmark.scores import (
    AUGMENTED,
    REFERENCE,
    MethodScores,
    Score,
    best_of,
    competes,
    goodness_of_return,
    goodness_of_rmse,
    plays,
)
from persim_lightning.support.files import atomic_write, markdown_table

# Below it, only that it is bad can be said.
_WORST_R2 = -10


def write_tables(scores: Sequence[MethodScores], asked: dict[str, Any], lines: Sequence[str], path: Path) -> Path:
    """Write the page of tables, whole or not at all.

    Parameters
    ----------
    scores : sequence of MethodScores
    asked : dict
        What one of the cells was asked for: what all have in common is told.
    lines : sequence of str
        The summary.
    path : Path
    """
    page = ["# Benchmark", "", _protocol(scores, asked), ""]
    if lines:
        page += ["## Summary", "", *(f"- {line}" for line in lines), ""]
    for environment in dict.fromkeys(own.environment for own in scores):
        page += [f"## {environment}", ""]
        own = [score for score in scores if score.environment == environment]
        for part in (prediction_table(own), return_table(own), simulated_data_table(own)):
            page += [*part, ""] if part else []
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(page).rstrip() + "\n")
    return path


def _protocol(scores: Sequence[MethodScores], asked: dict[str, Any]) -> str:
    seeds = sorted({seed for own in scores for seed in own.seeds})
    steps = asked["steps"] or "as many as conf/ENV.yaml gives PerSim"
    cut = f" Episodes are cut after {asked['max_steps']} steps." if asked["max_steps"] else ""
    return (
        f"Populations of {asked['agents']} agents, one trajectory each; test agents "
        f"{', '.join(map(str, asked['test_agents']))}; gradient steps: {steps}; {_listed(seeds)}: a "
        f"seed draws the data set, networks and episodes.{cut} The best of each column on a data set is bold."
    )


def _listed(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"


def prediction_table(scores: Sequence[MethodScores]) -> list[str]:
    """Table 1 of one environment: errors of open-loop predictions; nothing where no method predicts."""
    chosen = [own for own in scores if own.rmse is not None and own.method != REFERENCE]
    if not chosen:
        return []
    several = any(len(own.seeds) > 1 for own in chosen)
    spread = "; ± is the standard deviation over seeds" if several else ""
    clipped = any(-math.inf < value <= _WORST_R2 for own in chosen for value in own.r2 or [])
    clip = f"; an R² below {_WORST_R2} is only told as such" if clipped else ""
    title = (
        "**Table 1.** Mean RMSE, in the units of the states (median R²), of 50-step predictions of test trajectories; "
        f"{_seeds(chosen)}{spread}{clip}."
    )
    return [title, "", *_markdown(chosen, _prediction_cell, goodness_of_rmse)]


def return_table(scores: Sequence[MethodScores]) -> list[str]:
    """Table 2 of one environment: returns of policies, with the true dynamics' planner last."""
    chosen = [own for own in scores if competes(own) and plays(own)]
    # It learns nothing from a data set, so one of them is enough.
    reference = [own for own in scores if own.method == REFERENCE][:1]
    if not chosen and not reference:
        return []
    lines = _markdown(chosen, _return_cell, goodness_of_return, reference)
    return [f"**Table 2.** {_return_caption([*chosen, *reference])}", "", *lines]


def simulated_data_table(scores: Sequence[MethodScores]) -> list[str]:
    """Table 3 of one environment: learners on PerSim's simulated data beside the same learners on recorded data."""
    lines: list[str] = []
    everything: list[MethodScores] = []
    for augmented, rivals in AUGMENTED.items():
        family = [own for own in scores if own.method in (augmented, *rivals)]
        if any(own.method == augmented for own in family):
            everything += family
            lines += [*_markdown(family, _return_cell, goodness_of_return), ""]
    if not lines:
        return []
    return [f"**Table 3.** Learning on simulated data. {_return_caption(everything)}", "", *lines[:-1]]


def _return_caption(scores: Sequence[MethodScores]) -> str:
    counts: dict[int, list[str]] = {}
    for own in scores:
        labels = counts.setdefault(own.episodes, [])
        if own.label not in labels:
            labels.append(own.label)
    # The commonest number stands for all whose names are not given.
    common, *others = sorted(counts, key=lambda count: -len(counts[count]))
    exceptions = "".join(f", {count} for {', '.join(counts[count])}" for count in others)
    spread = "seeds of the seed's mean" if scores[0].spread_over == "seeds" else "episodes"
    episodes = f"{common} episode{'s' * (common > 1)} of every agent{exceptions}"
    return f"Return, mean ± standard deviation over {spread}; {episodes}; {_seeds(scores)}."


def _seeds(scores: Sequence[MethodScores]) -> str:
    """Which seeds the rows hold; where not all hold the same, which are behind."""
    full = max((own.seeds for own in scores), key=len)
    behind = [f"{own.label} on {own.dataset} {_listed(own.seeds)}" for own in scores if own.seeds != full]
    return _listed(full) + (f" ({'; '.join(behind)})" if behind else "")


def _markdown(
    scores: Sequence[MethodScores],
    cell: Callable[[MethodScores, int], str],
    goodness: Callable[[MethodScores, int], float],
    reference: Sequence[MethodScores] = (),
) -> list[str]:
    agents = [*scores, *reference][0].agents
    rows = []
    for dataset, group in itertools.groupby(scores, lambda own: own.dataset):
        rivals = list(group)
        tops = [best_of(rivals, place, goodness) for place in range(len(agents))]
        for own in rivals:
            cells = [cell(own, place) for place in range(len(agents))]
            for place, top in enumerate(tops):
                if top is not None and goodness(own, place) == goodness(top, place):
                    cells[place] = f"**{cells[place]}**"
            rows.append([dataset, own.label, *cells])
    rows += [["–", own.label, *(cell(own, place) for place in range(len(agents)))] for own in reference]
    return markdown_table(["data", "method", *(f"agent {agent}" for agent in agents)], rows)


def _return_cell(scores: MethodScores, place: int) -> str:
    return _with_std(scores.returns[place], ".1f")


def _prediction_cell(scores: MethodScores, place: int) -> str:
    assert scores.rmse is not None
    assert scores.r2 is not None
    score, r2 = scores.rmse[place], scores.r2[place]
    if math.isnan(score.mean):
        return "–"
    if math.isinf(score.mean):
        return "diverged"
    rounded = f"{r2:.3f}" if r2 > _WORST_R2 else f"< {_WORST_R2}"
    return f"{_with_std(score, '.3g')} ({rounded})"


def _with_std(score: Score, form: str) -> str:
    if not math.isfinite(score.mean):
        return "–"
    return f"{score.mean:{form}}" + ("" if math.isnan(score.std) else f" ± {score.std:{form}}")
