"""Figures that callbacks draw at the end of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from persim_lightning.support.figures import save_figure


def draw_latent_factors(
    points: np.ndarray, share: np.ndarray, names: Sequence[str], covariates: np.ndarray, path: Path
) -> Path:
    """Plot agents in the principal plane of their factors, one panel per covariate, which colors the points.

    Parameters
    ----------
    points : ndarray, shape (N, 2)
    share : ndarray, shape (2,)
        Fraction of the variance in each direction.
    names : sequence of str
        Names of the C covariates; may be empty.
    covariates : ndarray, shape (N, C)
    path : Path
        PNG.
    """
    panels = max(1, len(names))
    figure, axes = plt.subplots(1, panels, figsize=(6 * panels, 5), layout="constrained", squeeze=False)
    for panel, axis in enumerate(axes[0]):
        color = covariates[:, panel] if names else None
        scatter = axis.scatter(*points.T, c=color, s=14, cmap="viridis" if names else None)
        axis.set(
            xlabel=f"first direction ({share[0]:.0%} of variance)",
            ylabel=f"second direction ({share[1]:.0%})",
            title=f"agents by {names[panel]}" if names else "agents",
        )
        if names:
            figure.colorbar(scatter, ax=axis, label=names[panel])
    return save_figure(figure, path)


def draw_rollout_r2(
    horizons: Sequence[int], agents: Sequence[int | str], history: Sequence[dict[str, Any]], path: Path
) -> Path:
    """Plot R² of every test agent: against the horizon after training, and for the longest horizon against the epoch.

    Parameters
    ----------
    horizons : sequence of int
    agents : sequence of int or str
    history : sequence of dict
        `epoch` and `r2`, a list of shape (agents, horizons), in order of epochs.
    path : Path
        PNG.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    final = np.array(history[-1]["r2"], dtype=float)
    longest = np.array([entry["r2"] for entry in history], dtype=float)[..., -1]
    epochs = [entry["epoch"] for entry in history]
    for row, label in enumerate(agents):
        left.plot(horizons, final[row].clip(min=-1), marker="o", label=f"agent {label}")
        right.plot(epochs, longest[:, row].clip(min=-1), marker=".")
    left.set(xlabel="steps ahead", ylabel="R² over episodes (cut at -1)", title="after the last epoch")
    right.set(xlabel="epoch", title=f"{horizons[-1]} steps ahead, during training")
    for axes in (left, right):
        axes.set_ylim(-1.05, 1.05)
        axes.grid(alpha=0.3)
    left.legend()
    return save_figure(figure, path)
