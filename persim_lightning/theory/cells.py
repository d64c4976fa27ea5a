"""Cells of a continuous space: which center a point is nearest to."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor, nn

# Lloyd's algorithm reads all points for every center; above so many products a sample a step does as well.
_LLOYD_PRODUCTS = 1 << 24


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
        """k-means cells of points (B, X), fewer where there are fewer distinct points."""
        mean = points.double().mean(0)
        std = (points.double() - mean).square().mean(0).sqrt()
        std = torch.where(std > 0, std, 1.0)
        scaled = ((points.double() - mean) / std).numpy()
        distinct = len(np.unique(scaled, axis=0))
        if distinct <= count:
            center = np.unique(scaled, axis=0)
        elif len(scaled) * count <= _LLOYD_PRODUCTS:
            center = KMeans(count, n_init=1, random_state=seed).fit(scaled).cluster_centers_
        else:
            center = MiniBatchKMeans(count, n_init=1, batch_size=8192, random_state=seed).fit(scaled).cluster_centers_
        return cls(mean.float(), std.float(), torch.from_numpy(center).float())

    def nearest(self, points: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
        """The nearest cells of points (..., X): squared distances and indices, both (..., count), nearest first."""
        scaled = (points - self.mean) / self.std
        distance = torch.cdist(scaled, self.center, compute_mode="donot_use_mm_for_euclid_dist")
        near = distance.topk(count, largest=False)
        return near.values.square(), near.indices

    def assign(self, points: Tensor) -> Tensor:
        """Index of the nearest cell, (B, X) -> (B,)."""
        return torch.cat([self.nearest(part)[1][:, 0] for part in points.split(4096)])

    def weigh(self, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Inverse-distance weights (Shepard, 1968) and indices of the nearest cells, both (..., count)."""
        square, index = self.nearest(points, min(count, len(self.center)))
        # Relative to the nearest, so that a point on a center gets this cell alone.
        weight = (square[..., :1] + torch.finfo(square.dtype).tiny) / (square + torch.finfo(square.dtype).tiny)
        return weight / weight.sum(-1, keepdim=True), index
