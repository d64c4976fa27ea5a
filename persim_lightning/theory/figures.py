"""Draw the low-rank check."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from persim_lightning.support.figures import save_figure
from persim_lightning.theory.results import LearnedCheck, TheoremCheck, TruthCheck
from persim_lightning.theory.spectrum import MODES

_COLORS = dict(zip(MODES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
# Values below this are rounding errors.
_FLOOR = 1e-14


def draw_theorem(check: TheoremCheck, path: Path) -> Path:
    """Draw the spectra of the modes, errors against rank, and the model's error in every coordinate."""
    comparison = None if check.learned is None else check.learned.against_truth
    panels = 1 + (check.truth is not None) + (comparison is not None)
    figure, axes = plt.subplots(1, panels, figsize=(1 + 5 * panels, 4.6), layout="constrained", squeeze=False)
    _draw_spectra(check, axes[0, 0])
    if check.truth is not None:
        _draw_curves(check.truth, check.learned, axes[0, 1])
    if comparison is not None:
        errors = comparison.coordinate_errors
        axes[0, 2].barh(list(errors)[::-1], list(errors.values())[::-1])
        axes[0, 2].set(xlabel="relative error of the model", title="one step, by coordinate")
    figure.suptitle(check.name)
    return save_figure(figure, path)


def _draw_spectra(check: TheoremCheck, axes: Axes) -> None:
    spectra: list[tuple[str, str, dict[str, list[float]]]] = []
    if check.truth is not None:
        spectra.append(("truth", "-", check.truth.merged.spectrum))
    if check.learned is not None:
        spectra.append(("model", ":", check.learned.spectrum))
    for label, style, spectrum in spectra:
        for mode, values in spectrum.items():
            direction, value = np.arange(1, len(values) + 1), np.array(values)
            shown = value > _FLOOR
            axes.semilogy(
                direction[shown], value[shown], style, marker=".", color=_COLORS[mode], label=f"{mode}s, {label}"
            )
    axes.set(xlabel="direction", ylabel="singular value (largest = 1)", title="singular values of each mode")
    axes.set_xlim(0, 25)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_curves(truth: TruthCheck, learned: LearnedCheck | None, axes: Axes) -> None:
    for index, curve in enumerate(truth.coordinates.values()):
        label = "single coordinates (CP)" if index == 0 else None
        axes.semilogy(curve.ranks, np.maximum(curve.cp, _FLOOR), color="0.8", linewidth=1, label=label)
    merged = truth.merged
    axes.semilogy(merged.ranks, np.maximum(merged.cp, _FLOOR), marker="o", label="CP")
    axes.semilogy(merged.ranks, np.maximum(merged.tucker, _FLOOR), marker="s", markersize=4, label="Tucker")
    observed = truth.observed
    if observed.ranks:
        label = f"CP of the {observed.share:.0%} visited cells: error on the others"
        axes.semilogy(observed.ranks, observed.unseen, "--", marker="^", markersize=4, label=label)
    if learned is not None and learned.against_truth is not None:
        error = learned.against_truth.error
        if learned.factorization == "cp":
            axes.plot(learned.ranks[0], error, "r*", markersize=12, label="your model")
        else:
            ranks = " × ".join(map(str, learned.ranks))
            axes.axhline(error, color="tab:red", linestyle=":", label=f"your model, Tucker {ranks}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="rank", ylabel="relative error", title="best decomposition of the true tensor")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_recovered(check: TheoremCheck, path: Path) -> Path:
    """Plot the covariates of held-out agents, predicted from their factors, against the true ones."""
    assert check.covariates is not None
    assert check.recovered is not None
    assert check.learned is not None
    assert check.learned.covariates is not None
    count = len(check.covariates.names)
    figure, panels = plt.subplots(1, count, figsize=(5 * count, 4.6), layout="constrained", squeeze=False)
    for index, (name, axes) in enumerate(zip(check.covariates.names, panels[0], strict=True)):
        score = check.learned.covariates.quadratic[name]
        true, predicted = check.covariates.values[:, index], check.recovered[:, index]
        axes.axline((true.min(), true.min()), slope=1, color="0.7", zorder=0)
        axes.scatter(true, predicted, s=8, alpha=0.6)
        axes.set(
            xlabel=f"true {name}",
            ylabel="predicted from the agent's factor",
            title=name if score is None else f"{name}: R² {score:.4f}",
        )
    return save_figure(figure, path)
