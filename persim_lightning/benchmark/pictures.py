"""Pictures of the benchmark: returns and prediction errors of every environment."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persim_lightning.benchmark.scores import AUGMENTED, OURS, REFERENCE, MethodScores, Score, plays
from persim_lightning.support.figures import save_figure

# The widest share of the distance between two methods that agents' points spread over.
_SPREAD = 0.6
# As bars, agents would be hidden behind one another; a shape beside the color tells them apart in gray, too.
_MARKERS = "osD^vPX*"
# Inches that the title needs.
_TITLE = 6.0


def draw_environments(scores: Sequence[MethodScores], folder: Path) -> list[Path]:
    """Save returns-ENV.png and, where a method predicts, rmse-ENV.png; a panel for every data set."""
    paths = []
    for environment in dict.fromkeys(own.environment for own in scores):
        own = [score for score in scores if score.environment == environment]
        if any(map(plays, own)):
            paths.append(save_figure(_draw_returns(own), folder / f"returns-{environment}.png"))
        predicting = [score for score in own if score.rmse is not None and score.method != REFERENCE]
        if predicting:
            paths.append(save_figure(_draw_errors(predicting), folder / f"rmse-{environment}.png"))
    return paths


def _draw_returns(scores: Sequence[MethodScores]) -> Figure:
    # It learns nothing from a data set, so every panel shows it.
    reference = [own for own in scores if own.method == REFERENCE][:1]
    learned = [own for own in scores if own.method != REFERENCE and plays(own)]
    panels = {
        dataset: [*(own for own in learned if own.dataset == dataset), *reference]
        for dataset in dict.fromkeys(own.dataset for own in learned or reference)
    }
    label = f"return, mean ± std over {scores[0].spread_over}"
    figure = _draw_panels(panels, lambda own: own.returns, label, "linear")
    figure.suptitle(f"{scores[0].environment}: returns of test agents, higher is better{_gray_note(learned)}")
    return figure


def _gray_note(scores: Sequence[MethodScores]) -> str:
    """Says what the gray bands mean, where there are any besides the true dynamics' one."""
    return "\n(gray: not counted as rivals of PerSim)" if any(own.method in AUGMENTED for own in scores) else ""


def _draw_errors(scores: Sequence[MethodScores]) -> Figure:
    panels = {
        dataset: [own for own in scores if own.dataset == dataset]
        for dataset in dict.fromkeys(own.dataset for own in scores)
    }
    figure = _draw_panels(panels, lambda own: own.rmse or [], "mean RMSE of 50-step predictions", "log")
    lost = any(math.isinf(score.mean) for own in scores for score in own.rmse or [])
    note = "\n(hollow, at the top: diverged)" if lost else ""
    figure.suptitle(f"{scores[0].environment}: errors for test agents, lower is better{note}")
    return figure


def _draw_panels(
    panels: dict[str, list[MethodScores]], values: Callable[[MethodScores], list[Score]], label: str, scale: str
) -> Figure:
    """A panel for every data set, two side by side."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width = max(3.6, 0.55 * max(map(len, panels.values())) + 1)
    figure, axes = plt.subplots(
        *(rows, columns),
        figsize=(max(width * columns + 1.6, _TITLE), 3.8 * rows + 0.4),
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
    """A group of points for every method: each test agent's score, with its spread."""
    agents = rows[0].agents
    for place, agent in enumerate(agents):
        shift = _SPREAD * (place / max(1, len(agents) - 1) - 0.5)
        known = [
            (position + shift, values(own)[place])
            for position, own in enumerate(rows)
            if math.isfinite(values(own)[place].mean)
        ]
        axis.errorbar(
            [position for position, _ in known],
            [score.mean for _, score in known],
            yerr=[0.0 if math.isnan(score.std) else score.std for _, score in known],
            fmt=_MARKERS[place % len(_MARKERS)],
            color=f"C{place}",
            markersize=5,
            elinewidth=1,
            label=f"agent {agent}",
        )
        lost = [position + shift for position, own in enumerate(rows) if math.isinf(values(own)[place].mean)]
        axis.plot(
            *(lost, [0.96] * len(lost), _MARKERS[place % len(_MARKERS)]),
            transform=axis.get_xaxis_transform(),
            color=f"C{place}",
            fillstyle="none",
        )
    axis.set_xticks(range(len(rows)), [own.label for own in rows], rotation=45, ha="right", rotation_mode="anchor")
    for tick, own in zip(axis.get_xticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if own.method == OURS else "normal")
    for position, own in enumerate(rows):
        # Not among those that PerSim is compared with.
        if own.method in AUGMENTED or own.method == REFERENCE:
            axis.axvspan(position - 0.5, position + 0.5, color="0.93", zorder=0)
    axis.set_xlim(-0.6, len(rows) - 0.4)
    axis.grid(axis="y", alpha=0.3)
