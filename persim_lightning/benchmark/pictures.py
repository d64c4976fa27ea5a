"""Draws the returns and prediction errors of every environment."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persim_lightning.benchmark.scores import AUGMENTED, OURS, REFERENCE, MethodScores, Score, plays
from persim_lightning.support.figures import save_figure

# Width of a method's group of points, as a share of the distance between methods.
_SPREAD = 0.6
# Shapes distinguish agents in grayscale too.
_MARKERS = "osD^vPX*"
# Inches.
_MIN_WIDTH = 6.0


def draw_environments(scores: Sequence[MethodScores], folder: Path) -> list[Path]:
    """Save returns-ENV.png and, where a method predicts, rmse-ENV.png; a panel for every data set."""
    paths = []
    for environment in dict.fromkeys(entry.environment for entry in scores):
        group = [entry for entry in scores if entry.environment == environment]
        if any(map(plays, group)):
            paths.append(save_figure(_draw_returns(group), folder / f"returns-{environment}.png"))
        predicting = [entry for entry in group if entry.rmse is not None and entry.method != REFERENCE]
        if predicting:
            paths.append(save_figure(_draw_errors(predicting), folder / f"rmse-{environment}.png"))
    return paths


def _draw_returns(scores: Sequence[MethodScores]) -> Figure:
    # It does not depend on the data set, so every panel shows it.
    reference = [entry for entry in scores if entry.method == REFERENCE][:1]
    learned = [entry for entry in scores if entry.method != REFERENCE and plays(entry)]
    panels = {
        dataset: [*(entry for entry in learned if entry.dataset == dataset), *reference]
        for dataset in dict.fromkeys(entry.dataset for entry in learned or reference)
    }
    label = f"return, mean ± std over {scores[0].spread_over}"
    figure = _draw_panels(panels, lambda entry: entry.returns, label, "linear")
    figure.suptitle(f"{scores[0].environment}: returns of test agents, higher is better{_gray_note(learned)}")
    return figure


def _gray_note(scores: Sequence[MethodScores]) -> str:
    """Explain the gray bands if there are any besides that of the true dynamics."""
    return "\n(gray: not counted as rivals of PerSim)" if any(entry.method in AUGMENTED for entry in scores) else ""


def _draw_errors(scores: Sequence[MethodScores]) -> Figure:
    panels = {
        dataset: [entry for entry in scores if entry.dataset == dataset]
        for dataset in dict.fromkeys(entry.dataset for entry in scores)
    }
    figure = _draw_panels(panels, lambda entry: entry.rmse or [], "mean RMSE of 50-step predictions", "log")
    diverged = any(math.isinf(score.mean) for entry in scores for score in entry.rmse or [])
    note = "\n(hollow, at the top: diverged)" if diverged else ""
    figure.suptitle(f"{scores[0].environment}: errors for test agents, lower is better{note}")
    return figure


def _draw_panels(
    panels: dict[str, list[MethodScores]], values: Callable[[MethodScores], list[Score]], label: str, scale: str
) -> Figure:
    """Draw a panel for every data set, two in a row."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width = max(3.6, 0.55 * max(map(len, panels.values())) + 1)
    figure, axes = plt.subplots(
        *(rows, columns),
        figsize=(max(width * columns + 1.6, _MIN_WIDTH), 3.8 * rows + 0.4),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (dataset, methods) in zip(axes.flat, panels.items(), strict=False):
        axis.set_yscale(scale)
        _draw_points(axis, methods, values)
        axis.set_title(dataset)
    for axis in axes[:, 0]:
        axis.set_ylabel(label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def _draw_points(axis: Axes, rows: Sequence[MethodScores], values: Callable[[MethodScores], list[Score]]) -> None:
    """Draw a group of points for every method: each test agent's score with its standard deviation."""
    agents = rows[0].agents
    for index, agent in enumerate(agents):
        shift = _SPREAD * (index / max(1, len(agents) - 1) - 0.5)
        known = [
            (position + shift, values(entry)[index])
            for position, entry in enumerate(rows)
            if math.isfinite(values(entry)[index].mean)
        ]
        axis.errorbar(
            [position for position, _ in known],
            [score.mean for _, score in known],
            yerr=[0.0 if math.isnan(score.std) else score.std for _, score in known],
            fmt=_MARKERS[index % len(_MARKERS)],
            color=f"C{index}",
            markersize=5,
            elinewidth=1,
            label=f"agent {agent}",
        )
        diverged = [position + shift for position, entry in enumerate(rows) if math.isinf(values(entry)[index].mean)]
        axis.plot(
            *(diverged, [0.96] * len(diverged), _MARKERS[index % len(_MARKERS)]),
            transform=axis.get_xaxis_transform(),
            color=f"C{index}",
            fillstyle="none",
        )
    axis.set_xticks(range(len(rows)), [entry.label for entry in rows], rotation=45, ha="right", rotation_mode="anchor")
    for tick, entry in zip(axis.get_xticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if entry.method == OURS else "normal")
    for position, entry in enumerate(rows):
        # Gray: not a competitor of PerSim.
        if entry.method in AUGMENTED or entry.method == REFERENCE:
            axis.axvspan(position - 0.5, position + 0.5, color="0.93", zorder=0)
    axis.set_xlim(-0.6, len(rows) - 0.4)
    axis.grid(axis="y", alpha=0.3)
