"""The agents' latent factors as a table and as a picture (compare PerSim, figure 1)."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytorch_lightning as pl
import wandb

from persim_lightning.callbacks.wandb_log import log_figure, log_to_wandb
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import write_json
from persim_lightning.training.persim import PerSimModule


def principal_plane(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project agents onto the two directions in which their factors differ most.

    Parameters
    ----------
    factors : ndarray, shape (M, N, R)
        Members have bases of their own, so their factors are put side by side, not averaged.

    Returns
    -------
    points : ndarray, shape (N, 2)
        Zero-padded where the factors span fewer than two directions.
    share : ndarray, shape (2,)
        Share of the variance in each direction; zeros where agents do not differ.
    """
    flat = factors.transpose(1, 0, 2).reshape(factors.shape[1], -1)
    left, singular, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    points, variance = np.zeros((len(flat), 2)), np.zeros(2)
    kept = min(2, len(singular))
    points[:, :kept] = left[:, :kept] * singular[:kept]
    total = np.square(singular).sum()
    if total > 0:
        variance[:kept] = np.square(singular[:kept]) / total
    return points, variance


class LatentFactors(pl.Callback):
    """Logs the agents' factors at the end of training.

    Parameters
    ----------
    folder : Path
        Receives `latent_factors.json` and `figures/latent_factors.png`. Where an agents table is given, points are
        colored by covariate; covariates are never trained on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, PerSimModule)
        data = pl_module.datamodule
        factors = pl_module.simulator.agent_encoder.table().detach().cpu().double().numpy()
        names, covariates = data.covariates
        points, share = principal_plane(factors)
        columns: list[str | int] = ["agent", "pc1", "pc2", *(f"u{index}" for index in range(factors.shape[-1])), *names]
        rows = [
            [label, *points[row].tolist(), *factors[0, row].tolist(), *covariates[row].tolist()]
            for row, label in enumerate(data.agent_ids)
        ]
        write_json({"columns": columns, "rows": rows}, self._folder / "latent_factors.json")
        log_to_wandb(trainer, "latent_factors", wandb.Table(columns=columns, data=rows))
        log_figure(trainer, "figures/latent_factors", self._draw(points, share, names, covariates))

    def _draw(self, points: np.ndarray, share: np.ndarray, names: tuple[str, ...], covariates: np.ndarray) -> Path:
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
        return save_figure(figure, self._folder / "figures" / "latent_factors.png")
