"""Formats the paper's Tables 1 to 3 in Markdown."""

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

# An R² below it is shown as "< -10".
_WORST_R2 = -10


def write_tables(scores: Sequence[MethodScores], settings: dict[str, Any], lines: Sequence[str], path: Path) -> Path:
    """Write the page of tables atomically.

    Parameters
    ----------
    scores : sequence of MethodScores
    settings : dict
        Settings of one of the cells; those that all cells share are printed.
    lines : sequence of str
        The summary.
    path : Path
    """
    page = ["# Benchmark", "", _protocol(scores, settings), ""]
    if lines:
        page += ["## Summary", "", *(f"- {line}" for line in lines), ""]
    for environment in dict.fromkeys(entry.environment for entry in scores):
        page += [f"## {environment}", ""]
        group = [entry for entry in scores if entry.environment == environment]
        for part in (prediction_table(group), return_table(group), simulated_data_table(group)):
            page += [*part, ""] if part else []
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(page).rstrip() + "\n")
    return path


def _protocol(scores: Sequence[MethodScores], settings: dict[str, Any]) -> str:
    seeds = sorted({seed for entry in scores for seed in entry.seeds})
    steps = settings["steps"] or "PerSim's number in conf/ENV.yaml"
    limit = f" Episodes are truncated after {settings['max_steps']} steps." if settings["max_steps"] else ""
    return (
        f"Populations of {settings['agents']} agents, one trajectory each; test agents "
        f"{', '.join(map(str, settings['test_agents']))}; gradient steps: {steps}; {_list_seeds(seeds)}: a "
        f"seed draws the data set, networks and episodes.{limit} The best of each column on a data set is bold."
    )


def _list_seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"


def prediction_table(scores: Sequence[MethodScores]) -> list[str]:
    """Format Table 1 of one environment, errors of open-loop predictions; empty if no method predicts."""
    chosen = [entry for entry in scores if entry.rmse is not None and entry.method != REFERENCE]
    if not chosen:
        return []
    several = any(len(entry.seeds) > 1 for entry in chosen)
    spread = "; ± is the standard deviation over seeds" if several else ""
    clipped = any(-math.inf < value <= _WORST_R2 for entry in chosen for value in entry.r2 or [])
    clip = f"; an R² below {_WORST_R2} is not shown exactly" if clipped else ""
    title = (
        "**Table 1.** Mean RMSE, in the units of the states (median R²), of 50-step predictions of test trajectories; "
        f"{_seeds(chosen)}{spread}{clip}."
    )
    return [title, "", *_markdown(chosen, _prediction_cell, goodness_of_rmse)]


def return_table(scores: Sequence[MethodScores]) -> list[str]:
    """Format Table 2 of one environment, returns of policies, with planning on the true dynamics last."""
    chosen = [entry for entry in scores if competes(entry) and plays(entry)]
    # It does not depend on the data set, so one row is enough.
    reference = [entry for entry in scores if entry.method == REFERENCE][:1]
    if not chosen and not reference:
        return []
    lines = _markdown(chosen, _return_cell, goodness_of_return, reference)
    return [f"**Table 2.** {_return_caption([*chosen, *reference])}", "", *lines]


def simulated_data_table(scores: Sequence[MethodScores]) -> list[str]:
    """Format Table 3 of one environment, learners on PerSim's simulated data and on recorded data."""
    lines: list[str] = []
    shown: list[MethodScores] = []
    for augmented, rivals in AUGMENTED.items():
        family = [entry for entry in scores if entry.method in (augmented, *rivals)]
        if any(entry.method == augmented for entry in family):
            shown += family
            lines += [*_markdown(family, _return_cell, goodness_of_return), ""]
    if not lines:
        return []
    return [f"**Table 3.** Learning on simulated data. {_return_caption(shown)}", "", *lines[:-1]]


def _return_caption(scores: Sequence[MethodScores]) -> str:
    counts: dict[int, list[str]] = {}
    for entry in scores:
        labels = counts.setdefault(entry.episodes, [])
        if entry.label not in labels:
            labels.append(entry.label)
    # Name only methods whose number differs from the most frequent one.
    common, *others = sorted(counts, key=lambda count: -len(counts[count]))
    exceptions = "".join(f", {count} for {', '.join(counts[count])}" for count in others)
    spread = "seeds of the seed's mean" if scores[0].spread_over == "seeds" else "episodes"
    episodes = f"{common} episode{'s' * (common > 1)} of every agent{exceptions}"
    return f"Return, mean ± standard deviation over {spread}; {episodes}; {_seeds(scores)}."


def _seeds(scores: Sequence[MethodScores]) -> str:
    """List the seeds of the rows, and the rows that have fewer."""
    full = max((entry.seeds for entry in scores), key=len)
    behind = [f"{entry.label} on {entry.dataset} {_list_seeds(entry.seeds)}" for entry in scores if entry.seeds != full]
    return _list_seeds(full) + (f" ({'; '.join(behind)})" if behind else "")


def _markdown(
    scores: Sequence[MethodScores],
    cell: Callable[[MethodScores, int], str],
    goodness: Callable[[MethodScores, int], float],
    reference: Sequence[MethodScores] = (),
) -> list[str]:
    agents = [*scores, *reference][0].agents
    rows = []
    for dataset, group in itertools.groupby(scores, lambda entry: entry.dataset):
        rivals = list(group)
        tops = [best_of(rivals, index, goodness) for index in range(len(agents))]
        for entry in rivals:
            cells = [cell(entry, index) for index in range(len(agents))]
            for index, top in enumerate(tops):
                if top is not None and goodness(entry, index) == goodness(top, index):
                    cells[index] = f"**{cells[index]}**"
            rows.append([dataset, entry.label, *cells])
    rows += [["–", entry.label, *(cell(entry, index) for index in range(len(agents)))] for entry in reference]
    return markdown_table(["data", "method", *(f"agent {agent}" for agent in agents)], rows)


def _return_cell(scores: MethodScores, index: int) -> str:
    return _with_std(scores.returns[index], ".1f")


def _prediction_cell(scores: MethodScores, index: int) -> str:
    assert scores.rmse is not None
    assert scores.r2 is not None
    score, r2 = scores.rmse[index], scores.r2[index]
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
