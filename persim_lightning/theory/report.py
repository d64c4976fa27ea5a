"""The low-rank check as files: JSON and pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import write_json
from persim_lightning.theory.check import MODES, LearnedCheck, TheoremCheck, TruthCheck
from persim_lightning.theory.summary import summary

_COLORS = dict(zip(MODES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
# Below it everything is rounding.
_FLOOR = 1e-14


def write_check(check: TheoremCheck, folder: Path) -> list[Path]:
    """Write `theorem.json` and two pictures in `figures/`: of the decompositions, and of covariates where known."""
    write_json({**check.to_dict(), "summary": summary(check)}, folder / "theorem.json")
    written = [folder / "theorem.json", draw_theorem(check, folder / "figures" / "theorem.png")]
    if check.recovered is not None:
        written.append(draw_recovered(check, folder / "figures" / "recovered_covariates.png"))
    return written


def draw_theorem(check: TheoremCheck, path: Path) -> Path:
    """Spectra of the modes, errors against rank, and the model's error in every coordinate."""
    compared = None if check.learned is None else check.learned.against_truth
    panels = 1 + (check.truth is not None) + (compared is not None)
    figure, axes = plt.subplots(1, panels, figsize=(1 + 5 * panels, 4.6), layout="constrained", squeeze=False)
    _draw_spectra(check, axes[0, 0])
    if check.truth is not None:
        _draw_curves(check.truth, check.learned, axes[0, 1])
    if compared is not None:
        errors = compared.coordinate_errors
        axes[0, 2].barh(list(errors)[::-1], list(errors.values())[::-1])
        axes[0, 2].set(xlabel="relative error of the model", title="one step, by coordinate")
    figure.suptitle(check.name)
    return save_figure(figure, path)


def _draw_spectra(check: TheoremCheck, axes: Axes) -> None:
    known: list[tuple[str, str, dict[str, list[float]]]] = []
    if check.truth is not None:
        known.append(("truth", "-", check.truth.merged.spectrum))
    if check.learned is not None:
        known.append(("model", ":", check.learned.spectrum))
    for label, style, spectrum in known:
        for mode, values in spectrum.items():
            count = np.arange(1, len(values) + 1)
            kept = np.array(values) > _FLOOR
            axes.semilogy(
                count[kept], np.array(values)[kept], style, marker=".", color=_COLORS[mode], label=f"{mode}s, {label}"
            )
    axes.set(xlabel="direction", ylabel="singular value (largest = 1)", title="how many directions each mode has")
    axes.set_xlim(0, 25)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_curves(truth: TruthCheck, learned: LearnedCheck | None, axes: Axes) -> None:
    for index, curve in enumerate(truth.coordinates.values()):
        label = "single coordinates (CP)" if index == 0 else None
        axes.semilogy(curve.ranks, np.maximum(curve.cp, _FLOOR), color="0.8", linewidth=1, label=label)
    whole = truth.merged
    axes.semilogy(whole.ranks, np.maximum(whole.cp, _FLOOR), marker="o", label="CP")
    axes.semilogy(whole.ranks, np.maximum(whole.tucker, _FLOOR), marker="s", markersize=4, label="Tucker")
    observed = truth.observed
    label = f"CP of the {observed.share:.0%} visited cells, on the others"
    if observed.ranks:
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
    """Covariates of held-out agents as their factors tell them, against the true ones."""
    assert check.facts is not None
    assert check.recovered is not None
    assert check.learned is not None
    assert check.learned.covariates is not None
    count = len(check.facts.names)
    figure, panels = plt.subplots(1, count, figsize=(5 * count, 4.6), layout="constrained", squeeze=False)
    for index, (name, axes) in enumerate(zip(check.facts.names, panels[0], strict=True)):
        score = check.learned.covariates.quadratic[name]
        true, told = check.facts.covariates[:, index], check.recovered[:, index]
        axes.axline((true.min(), true.min()), slope=1, color="0.7", zorder=0)
        axes.scatter(true, told, s=8, alpha=0.6)
        axes.set(
            xlabel=f"true {name}",
            ylabel="told by the agent's factor",
            title=name if score is None else f"{name}: R² {score:.4f}",
        )
    return save_figure(figure, path)
