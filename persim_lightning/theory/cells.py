"""Discretize a continuous space: assign points to the nearest of several centers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

# Above this number of (point, center) pairs, mini-batches replace Lloyd's algorithm: they are faster and as good.
_MAX_LLOYD_PAIRS = 1 << 24


class Cells(nn.Module):
    """A Voronoi partition of a standardized space.

    Parameters
    ----------
    mean, std : Tensor, shape (X,)
    center : Tensor, shape (C, X)
        In standardized units.
    """

    mean: Tensor
    std: Tensor
    center: Tensor

    def __init__(self, mean: Tensor, std: Tensor, center: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("center", center)

    @classmethod
    def fit(cls, points: Tensor, count: int, seed: int) -> Cells:
        """Fit `count` k-means cells to points (B, X); fewer if there are fewer distinct points."""
        # Imported late: it takes a second, and most commands fit no cells.
        from sklearn.cluster import KMeans, MiniBatchKMeans

        mean = points.double().mean(0)
        std = (points.double() - mean).square().mean(0).sqrt()
        std = torch.where(std > 0, std, 1.0)
        scaled = ((points.double() - mean) / std).numpy()
        distinct = len(np.unique(scaled, axis=0))
        if distinct <= count:
            center = np.unique(scaled, axis=0)
        elif len(scaled) * count <= _MAX_LLOYD_PAIRS:
            center = KMeans(count, n_init=1, random_state=seed).fit(scaled).cluster_centers_
        else:
            center = MiniBatchKMeans(count, n_init=1, batch_size=8192, random_state=seed).fit(scaled).cluster_centers_
        return cls(mean.float(), std.float(), torch.from_numpy(center).float())

    def nearest(self, points: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
        """Find the nearest cells of points (..., X).

        Returns
        -------
        square, index : Tensor, shape (..., count)
            Squared distances, ascending, and cell indices.
        """
        scaled = (points - self.mean) / self.std
        distance = torch.cdist(scaled, self.center, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(count, largest=False)
        return nearest.values.square(), nearest.indices

    def assign(self, points: Tensor) -> Tensor:
        """Return the index of the nearest cell, (B, X) -> (B,)."""
        return torch.cat([self.nearest(chunk)[1][:, 0] for chunk in points.split(4096)])

    def weigh(self, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Compute inverse-distance weights (Shepard, 1968) of the nearest cells.

        Returns
        -------
        weight, index : Tensor, shape (..., count)
            Weights that sum to one, and cell indices.
        """
        square, index = self.nearest(points, min(count, len(self.center)))
        # Relative to the smallest distance, so that a point at a center gets weight 1 for that cell only.
        weight = (square[..., :1] + torch.finfo(square.dtype).tiny) / (square + torch.finfo(square.dtype).tiny)
        return weight / weight.sum(-1, keepdim=True), index
