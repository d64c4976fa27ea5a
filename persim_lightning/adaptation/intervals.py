"""Intervals of rollouts: spread over members and draws of the agent's factor, scaled until they cover held-out tails.

Split-conformal prediction with a normalized score (Lei et al., 2018, https://doi.org/10.1080/01621459.2017.1307116):
the model's spread predicts where errors are large, and held-out data calibrate its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.files import read_json, write_json

LEVELS = (0.5, 0.8, 0.9, 0.95)
DRAWS = 8
# Smallest spread, as a share of a typical step, since members may agree by chance.
SPREAD_FLOOR = 1e-3
# Smallest number of tails that gives a quantile.
_MIN_TAILS = 10
# Score of a rollout that diverged.
_DIVERGED = 1e6


def drawn_factors(mean: Tensor, root: Tensor, draws: int = DRAWS) -> Tensor:
    """Draw agents' factors.

    Parameters
    ----------
    mean, root : Tensor, shapes (M, B, R) and (M, B, R, R)
        Posterior of the factors of B agents: mean, and square root S of the covariance S·Sᵀ.
    draws : int
        K. Their noise is the same for all agents and comes in pairs of opposite signs.

    Returns
    -------
    Tensor, shape (M, K, B, R)
    """
    members, _, rank = mean.shape
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(members, draws // 2, 1, rank, generator=generator, dtype=torch.float64)
    noise = torch.cat((half, -half), dim=1)
    return mean[:, None] + (root[:, None] @ noise.expand(-1, -1, mean.shape[1], -1)[..., None])[..., 0]


@torch.no_grad()
def sampled_rollouts(
    population: FittedPopulation, factors: Tensor, states: Tensor, actions: Tensor, duration: Tensor | None = None
) -> Tensor:
    """Roll out every member under draws of agents' factors.

    Parameters
    ----------
    population : FittedPopulation
    factors : Tensor, shape (M, K, B, R)
        Draws of the factor of each row's agent, from :func:`drawn_factors`.
    states : Tensor, shape (B, D)
    actions : Tensor, shape (B, H) or (B, H, A)
    duration : Tensor, shape (B, H), optional

    Returns
    -------
    Tensor, shape (M·K, B, H+1, D)
    """
    draws, batch = factors.shape[1:3]
    simulator = population.simulator
    spans = None if duration is None else duration.repeat(draws, 1)
    repeated = states.repeat(draws, 1), actions.repeat(draws, *[1] * (actions.ndim - 1)), spans
    many = simulator.rollout_factors(factors.flatten(1, 2).to(simulator.delta_rms), *repeated)
    return many.unflatten(1, (draws, batch)).flatten(0, 1)


def spread(rollouts: Tensor, delta_rms: Tensor) -> Tensor:
    """Compute the floored standard deviation over members and draws, (S, B, H+1, D) -> (B, H, D), from step 1 on."""
    return floored_spread(rollouts[:, :, 1:], delta_rms)


def floored_spread(rollouts: Tensor, delta_rms: Tensor) -> Tensor:
    """Compute the floored standard deviation over members and draws, (S, B, H, D) -> (B, H, D)."""
    return rollouts.std(0, correction=0).clamp(min=1e-30).maximum(SPREAD_FLOOR * delta_rms)


def bucket(elapsed: Tensor) -> Tensor:
    """Index of the base step in which a time lies: 0 for times up to one base step."""
    return (elapsed - 1e-4).ceil().long().sub(1).clamp(min=0)


def _quantiles(scores: Tensor) -> Tensor:
    """Conformal quantiles of sorted scores: the ceil((n + 1)·level)-th smallest; a normal distribution's of none."""
    if not len(scores):
        return math.sqrt(2) * torch.erfinv(torch.tensor(LEVELS))
    return scores[[min(len(scores), math.ceil((len(scores) + 1) * level)) - 1 for level in LEVELS]]


@dataclass(frozen=True)
class Calibration:
    """Half widths of intervals, in units of the spread.

    Attributes
    ----------
    levels : tuple of float
    factors : Tensor, shape (L, H, D)
        By level, horizon and coordinate; beyond H the last one is used, but at least a normal distribution's.
    """

    levels: tuple[float, ...]
    factors: Tensor

    @classmethod
    def of(cls, errors: Tensor, spreads: Tensor, valid: Tensor, elapsed: Tensor | None = None) -> Calibration:
        """Calibrate on held-out tails.

        Parameters
        ----------
        errors, spreads : Tensor, shape (B, H, D)
            Predicted minus recorded states, and their spreads from :func:`spread`.
        valid : Tensor, shape (B, H) or (B, H, D), bool
            States that are recorded in a tail. Horizons with fewer than ten tails use the previous horizon's factors.
        elapsed : Tensor, shape (B, H), optional
            Base steps since the start of the rollout; 1, 2, … by default.
        """
        # A diverged rollout is wrong by any width; JSON has no infinities.
        scores = (errors.abs() / spreads).nan_to_num(nan=_DIVERGED, posinf=_DIVERGED)
        if elapsed is not None or valid.ndim == 3:
            steps = torch.arange(1, scores.shape[1] + 1.0).expand(scores.shape[:2]) if elapsed is None else elapsed
            return cls._of_uneven(scores, valid if valid.ndim == 3 else valid[..., None].expand_as(scores), steps)
        factors = scores.new_empty(len(LEVELS), *scores.shape[1:])
        for h in range(scores.shape[1]):
            own = scores[valid[:, h], h].sort(0).values
            if h and len(own) < _MIN_TAILS:
                factors[:, h] = factors[:, h - 1]
                continue
            factors[:, h] = _quantiles(own)
        return cls(LEVELS, factors)

    @classmethod
    def _of_uneven(cls, scores: Tensor, valid: Tensor, elapsed: Tensor) -> Calibration:
        """Calibrate by base step, on scores (B, H, D) of which `valid` (B, H, D) exist, after `elapsed` (B, H)."""
        step = bucket(elapsed)[..., None].expand_as(scores)
        horizon = int(step[valid].max()) + 1 if bool(valid.any()) else 1
        factors = scores.new_full((len(LEVELS), horizon, scores.shape[-1]), torch.nan)
        for d in range(scores.shape[-1]):
            pooled = scores[..., d][valid[..., d]].sort().values
            for h in range(horizon):
                own = scores[..., d][valid[..., d] & (step[..., d] == h)].sort().values
                if len(own) < _MIN_TAILS:
                    # Too few: as before, or all horizons together.
                    factors[:, h, d] = factors[:, h - 1, d] if h else _quantiles(pooled)
                    continue
                factors[:, h, d] = _quantiles(own)
        return cls(LEVELS, factors)

    def check(self, level: float) -> None:
        """Check that a level is within the calibrated ones.

        Raises
        ------
        ConfigurationError
        """
        if not self.levels[0] <= level <= self.levels[-1]:
            raise ConfigurationError(
                f"level {level}: intervals are calibrated from {self.levels[0]} to {self.levels[-1]}"
            )

    def save(self, path: Path) -> Path:
        """Write as JSON."""
        write_json({"levels": list(self.levels), "factors": self.factors.tolist()}, path)
        return path

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ConfigurationError
            If the file is damaged.
        """
        values = read_json(path)
        try:
            return cls(tuple(values["levels"]), torch.tensor(values["factors"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{path} is damaged ({type(error).__name__})") from error

    def half_width(self, spreads: Tensor, level: float) -> Tensor:
        """Compute half widths of intervals, (B, H, D) -> (B, H, D), for a level within the calibrated ones."""
        return self.half_width_after(spreads, torch.arange(1, spreads.shape[1] + 1.0), level)

    def half_width_after(self, spreads: Tensor, elapsed: Tensor, level: float) -> Tensor:
        """Compute half widths (..., D) of spreads (..., D) after `elapsed` (...) base steps."""
        step = bucket(elapsed)
        place = torch.tensor(self.levels)
        upper = int(torch.searchsorted(place, level).clamp(1, len(place) - 1))
        share = (level - self.levels[upper - 1]) / (self.levels[upper] - self.levels[upper - 1])
        factor = torch.lerp(self.factors[upper - 1], self.factors[upper], share)
        factor = factor[step.clamp(max=self.factors.shape[1] - 1)]
        # Errors may accumulate beyond the calibrated horizon, so intervals there are at least those of the spread.
        beyond = (step >= self.factors.shape[1])[..., None]
        normal = math.sqrt(2) * torch.erfinv(torch.tensor(level))
        return spreads * torch.where(beyond, factor.clamp(min=normal), factor)
