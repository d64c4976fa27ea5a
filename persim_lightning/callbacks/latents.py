"""Log the agents' latent factors as a table and a figure (compare PerSim, figure 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from persim_lightning.callbacks.wandb_log import log_figure, log_table
from persim_lightning.store.names import FIGURES, LATENT_FACTORS
from persim_lightning.support.files import write_json
from persim_lightning.training.persim import PerSimModule


def principal_plane(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project agents onto the two directions in which their factors differ most.

    Parameters
    ----------
    factors : ndarray, shape (M, N, R)
        Every member has a different basis, so members are concatenated, not averaged.

    Returns
    -------
    points : ndarray, shape (N, 2)
        Zero-padded if the factors span fewer than two directions.
    share : ndarray, shape (2,)
        Fraction of the variance in each direction; zeros if agents do not differ.
    """
    flat = factors.transpose(1, 0, 2).reshape(factors.shape[1], -1)
    left, singular, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    points, share = np.zeros((len(flat), 2)), np.zeros(2)
    count = min(2, len(singular))
    points[:, :count] = left[:, :count] * singular[:count]
    total = np.square(singular).sum()
    if total > 0:
        share[:count] = np.square(singular[:count]) / total
    return points, share


class LatentFactors(pl.Callback):
    """Log the agents' factors at the end of training.

    If covariates are known, they color the points of the figure. They are not used in training.

    Parameters
    ----------
    folder : Path
        Folder for `latent_factors.json` and `figures/latent_factors.png`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        # Imported late: drawing needs matplotlib.
        from persim_lightning.callbacks.figures import draw_latent_factors

        assert isinstance(pl_module, PerSimModule)
        data = pl_module.datamodule
        factors = pl_module.simulator.agent_encoder.table().detach().cpu().double().numpy()
        names, covariates = data.covariates
        points, share = principal_plane(factors)
        columns = ["agent", "pc1", "pc2", *(f"u{index}" for index in range(factors.shape[-1])), *names]
        rows = [
            [label, *points[row].tolist(), *factors[0, row].tolist(), *covariates[row].tolist()]
            for row, label in enumerate(data.agent_ids)
        ]
        write_json({"columns": columns, "rows": rows}, self._folder / LATENT_FACTORS)
        log_table(trainer, "latent_factors", columns, rows)
        path = self._folder / FIGURES / "latent_factors.png"
        log_figure(trainer, "figures/latent_factors", draw_latent_factors(points, share, names, covariates, path))
