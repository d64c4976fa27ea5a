"""Distributions over action sequences, for discrete and for bounded continuous actions. Planners search over them.

A distribution is a tuple of tensors whose first dimension is the batch of problems. A planner can store it and drop the
rows of ended problems without knowing the kind of action. Samples are computed from standard normal noise of shape
(P, H, width) that all problems share, so a problem's plan does not depend on the other problems of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Distribution = tuple[Tensor, ...]


class ActionSpace(Protocol):
    """Distributions over sequences of H actions, for B problems.

    Attributes
    ----------
    width : int
        Number of noise values per action.
    """

    @property
    def width(self) -> int: ...

    def start(self, batch: int, horizon: int, device: torch.device) -> Distribution:
        """Return the widest distribution: uniform for discrete actions; centered, std half the range, for others."""
        ...

    def uniform(self, noise: Tensor) -> Tensor:
        """Transform white noise to independent uniform actions: (P, H, width) -> (P, H) or (P, H, A)."""
        ...

    def sample(self, distribution: Distribution, noise: Tensor) -> Tensor:
        """Transform noise to samples: (P, H, width) -> plans (B, P, H) or (B, P, H, A)."""
        ...

    def fit(self, plans: Tensor, weights: Tensor) -> Distribution:
        """Fit a distribution by moments: plans (B, P, H)|(B, P, H, A), weights (B, P) that sum to one."""
        ...

    def shift(self, distribution: Distribution) -> Distribution:
        """Shift the distribution by one step and widen it."""
        ...

    def mode(self, distribution: Distribution) -> Tensor:
        """Return the most likely plans, (B, H) or (B, H, A)."""
        ...


def shift_plans(plans: Tensor, dim: int) -> Tensor:
    """Drop the first action along `dim` and repeat the last one."""
    horizon = plans.shape[dim]
    index = torch.arange(1, horizon + 1, device=plans.device).clamp(max=horizon - 1)
    return plans.index_select(dim, index)


def blend(old: Distribution, new: Distribution, momentum: float) -> Distribution:
    """Average parameters, with weight `momentum` on the old ones."""
    return tuple(torch.lerp(after, before, momentum) for before, after in zip(old, new, strict=True))


@dataclass(frozen=True)
class Discrete:
    """Actions 0 … count-1; a distribution is a single tensor of probabilities (B, H, count).

    Parameters
    ----------
    count : int
    floor : float
        Weight of the uniform distribution in every fitted one, so that every action stays possible.
    """

    count: int
    floor: float = 0.02
    width = 1

    def start(self, batch: int, horizon: int, device: torch.device) -> Distribution:
        return (torch.full((batch, horizon, self.count), 1 / self.count, device=device),)

    def uniform(self, noise: Tensor) -> Tensor:
        return (_normal_cdf(noise[..., 0]) * self.count).long().clamp(max=self.count - 1)

    def sample(self, distribution: Distribution, noise: Tensor) -> Tensor:
        # One noise value per action, so that noise that changes slowly along H gives actions that change rarely.
        level = _normal_cdf(noise[..., 0])[..., None]
        return (level > distribution[0].cumsum(-1)[:, None, :, :-1]).sum(-1)

    def fit(self, plans: Tensor, weights: Tensor) -> Distribution:
        probabilities = (F.one_hot(plans, self.count) * weights[:, :, None, None]).sum(1)
        return (torch.lerp(probabilities, torch.full_like(probabilities, 1 / self.count), self.floor),)

    def shift(self, distribution: Distribution) -> Distribution:
        probabilities = shift_plans(distribution[0], dim=1)
        return (torch.lerp(probabilities, torch.full_like(probabilities, 1 / self.count), 0.5),)

    def mode(self, distribution: Distribution) -> Tensor:
        return distribution[0].argmax(-1)


@dataclass(frozen=True)
class Box:
    """Actions in [low, high] in each of `dim` coordinates; a distribution is a pair (mean, std), each (B, H, dim).

    Parameters
    ----------
    dim : int
    low, high : float
    min_std : float
        Smallest standard deviation of a fitted distribution, as a fraction of half the range.
    """

    dim: int
    low: float = -1.0
    high: float = 1.0
    min_std: float = 0.05

    @property
    def width(self) -> int:
        return self.dim

    @property
    def _half_range(self) -> float:
        return (self.high - self.low) / 2

    def start(self, batch: int, horizon: int, device: torch.device) -> Distribution:
        mean = torch.full((batch, horizon, self.dim), (self.low + self.high) / 2, device=device)
        return mean, torch.full_like(mean, self._half_range)

    def uniform(self, noise: Tensor) -> Tensor:
        return self.low + 2 * self._half_range * _normal_cdf(noise)

    def sample(self, distribution: Distribution, noise: Tensor) -> Tensor:
        mean, std = distribution
        return (mean[:, None] + std[:, None] * noise).clamp(self.low, self.high)

    def fit(self, plans: Tensor, weights: Tensor) -> Distribution:
        weights = weights[:, :, None, None]
        mean = (weights * plans).sum(1)
        variance = (weights * (plans - mean[:, None]).square()).sum(1)
        return mean, variance.sqrt().clamp(min=self.min_std * self._half_range)

    def shift(self, distribution: Distribution) -> Distribution:
        mean, std = distribution
        return shift_plans(mean, dim=1), torch.full_like(std, self._half_range)

    def mode(self, distribution: Distribution) -> Tensor:
        return distribution[0]


def _normal_cdf(noise: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(noise / math.sqrt(2)))
