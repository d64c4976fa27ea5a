"""Fits affine dynamics of all agents in closed form: a mean over agents, and shrunken deviations from it.

Coefficients of agent n have the prior N(μ, diag(v)), and observations Gaussian noise. Expectation maximization finds μ,
v and the noise (empirical Bayes; Laird and Ware, Random-effects models for longitudinal data, Biometrics 1982). With
v = 0 all agents share one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.adaptation.agent_factors import residual_variance
from persim_lightning.adaptation.designs import linearized
from persim_lightning.models.affine import AffineTerms, affine_features
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Chains, Transitions

# Rounds that alternate between noise and coefficients, and rounds of expectation maximization in each.
_ROUNDS, _PRIOR_ROUNDS = 5, 12
# Weight of the prior of the mean's coefficients besides the intercept, in rows of data.
_RIDGE = 1.0
# Smallest variances, relative to the noise: of coefficients, so that they can be inverted, and of the noise itself.
_VARIANCE_FLOOR, _NOISE_FLOOR = 1e-8, 1e-10
# Variance of agents' coefficients at the start, relative to the noise.
_FIRST_VARIANCE = 0.1
# Agents from which the prior is estimated at most, and agents that are solved for together.
_PRIOR_AGENTS, _BLOCK = 2000, 4096


class _Sums(NamedTuple):
    """Normal equations of N agents in K blocks of r coefficients, weighted by the precision of the noise.

    Attributes
    ----------
    gram : Tensor, shape (N, K, r, r)
        K may be 1 where all blocks share one matrix but for the noise.
    moment : Tensor, shape (N, K, r)
    """

    gram: Tensor
    moment: Tensor


@torch.no_grad()
def fit_affine(
    simulator: Simulator,
    batches: Callable[[], Iterable[Transitions | Chains]],
    varying: Tensor,
    weight: float = 1.0,
) -> None:
    """Set the coefficients, the prior and the noise of an affine simulator, in place.

    Parameters
    ----------
    simulator : Simulator
        From :func:`~persim_lightning.models.affine.affine_simulator`.
    batches : callable, () -> iterable of Transitions or Chains
        The training set, each transition or chain once, shapes (B, ...).
    varying : Tensor, shape (P,), bool
        Terms whose coefficients differ between agents.
    weight : float
        Weight of every observation; chains that overlap K times count 1/K each.
    """
    fit = _Fit(simulator, batches, varying, weight)
    fit.run()
    encoder = simulator.agent_encoder
    encoder.shared.copy_(fit.mean.flatten())
    encoder.deviation.copy_((fit.coefficients - fit.mean).flatten(1)[None])
    simulator.prior_mean.copy_(fit.mean.flatten()[None])
    simulator.prior_covariance.copy_(torch.diag(fit.floored_variance().flatten())[None])
    simulator.noise.copy_(fit.noise[None])


class _Fit:
    """State of :func:`fit_affine`: noise (D,), mean (D, P), variance (D, P) and coefficients (N, D, P), float64."""

    def __init__(
        self,
        simulator: Simulator,
        batches: Callable[[], Iterable[Transitions | Chains]],
        varying: Tensor,
        weight: float,
    ) -> None:
        self._simulator, self._batches, self._weight = simulator, batches, weight
        self._terms = AffineTerms.of(simulator.config)
        shape = (self._terms.coordinates, self._terms.each)
        self._varying = varying.expand(shape)
        self._count, self._square = 0.0, torch.zeros(shape[0], dtype=torch.float64)
        # Of a simulator that predicts no change.
        self.noise = residual_variance(simulator, batches())[0].double().clamp(min=_NOISE_FLOOR)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.coefficients = self.mean.expand(simulator.num_agents, *shape)
        self.variance = torch.where(self._varying, _FIRST_VARIANCE * self.noise[:, None], 0.0)

    def run(self) -> None:
        first = next(iter(self._batches()), None)
        if first is None:
            return
        if isinstance(first, Transitions):
            sums = self._transition_sums()
            for _ in range(_ROUNDS):
                scaled = _Sums(sums.gram / self.noise[:, None, None], sums.moment / self.noise[:, None])
                spread = self._estimate(scaled)
                fitted = (self.coefficients[..., None, :] @ sums.gram @ self.coefficients[..., None])[..., 0, 0]
                error = self._square - 2 * (self.coefficients * sums.moment).sum((0, 2)) + fitted.sum(0)
                self.noise = ((error + spread) / max(self._count, 1e-9)).clamp(min=_NOISE_FLOOR)
            return
        for _ in range(_ROUNDS):
            self._estimate(self._chain_sums())
            self._simulator.agent_encoder.deviation.copy_(self.coefficients.flatten(1)[None])
            self.noise = residual_variance(self._simulator, self._batches())[0].double().clamp(min=_NOISE_FLOOR)

    def floored_variance(self) -> Tensor:
        return self.variance + _VARIANCE_FLOOR * self.noise[:, None]

    def _penalty(self, rows: float) -> Tensor:
        """Precision of the mean's prior, (D, P): that of a row of data, of an agent that has `rows` of them."""
        penalty = _RIDGE / (self.noise[:, None] + rows * self.variance)
        penalty[:, 0] = 0.0
        return penalty + 1e-9

    def _transition_sums(self) -> _Sums:
        """Sum over transitions, for which coordinates share one matrix, without the noise's precision."""
        agents, (coordinates, each) = self._simulator.num_agents, self.mean.shape
        gram = torch.zeros(agents, each, each, dtype=torch.float64)
        moment = torch.zeros(agents, coordinates, each, dtype=torch.float64)
        for batch in self._batches():
            assert isinstance(batch, Transitions)
            features = affine_features(self._simulator, batch.state, batch.action)
            target = (batch.delta / self._simulator.delta_rms).double()
            gram.index_add_(0, batch.agent, self._weight * features[:, :, None] * features[:, None])
            moment.index_add_(0, batch.agent, self._weight * target[:, :, None] * features[:, None])
            self._square += self._weight * target.square().sum(0)
            self._count += self._weight * len(target)
        return _Sums(gram[:, None], moment)

    def _chain_sums(self) -> _Sums:
        """Sum over chains, linearized at the present coefficients; all coordinates are one block."""
        agents, rank = self._simulator.num_agents, self._terms.rank
        gram = torch.zeros(agents, rank, rank, dtype=torch.float64)
        moment = torch.zeros(agents, rank, dtype=torch.float64)
        factors = self.coefficients.flatten(1)[None]
        for batch in self._batches():
            assert isinstance(batch, Chains)
            linear = linearized(self._simulator, batch, factors[:, batch.agent])
            noise = self.noise.repeat(batch.duration.shape[1])[:, None]
            weighted = self._weight * linear.design[0] / noise
            gram.index_add_(0, batch.agent, weighted.mT @ linear.design[0])
            moment.index_add_(0, batch.agent, (weighted * linear.target[0, ..., None]).sum(1))
        return _Sums(gram[:, None], moment[:, None])

    def _estimate(self, sums: _Sums) -> Tensor:
        """Update mean, variance and coefficients; return the part of the squared error that is uncertainty, (D,)."""
        shape = sums.moment.shape[1:]
        if not bool(self._varying.any()):
            total = sums.gram.sum(0) + torch.diag_embed(self._penalty(0.0).view(shape))
            self.mean = torch.linalg.solve(total, sums.moment.sum(0)).view_as(self.mean)
            self.coefficients = self.mean.expand_as(self.coefficients)
            return torch.zeros_like(self.noise)
        # Evenly over the agents, which may be sorted.
        some = torch.arange(0, len(sums.gram), max(1, -(-len(sums.gram) // _PRIOR_AGENTS)))
        part = _Sums(sums.gram[some], sums.moment[some])
        rows = float(part.gram[..., 0, 0].mean() * self.noise.mean())
        for _ in range(_PRIOR_ROUNDS):
            variance = self.floored_variance().view(shape)
            covariance = torch.linalg.inv(part.gram + torch.diag_embed(1 / variance))
            # Generalized least squares for the mean, with agents' deviations integrated out.
            reduced = part.gram - part.gram @ covariance @ part.gram
            target = part.moment - (part.gram @ covariance @ part.moment[..., None])[..., 0]
            penalty = torch.diag_embed(self._penalty(rows).view(shape))
            mean = torch.linalg.solve(reduced.sum(0) + penalty, target.sum(0))
            deviation = (covariance @ (part.moment - (part.gram @ mean[..., None])[..., 0])[..., None])[..., 0]
            found = (deviation.square() + covariance.diagonal(dim1=-2, dim2=-1)).sum(0) / (len(some) + 1)
            self.variance = torch.where(self._varying, found.view_as(self.mean), 0.0)
        self.mean = mean.view_as(self.mean)
        precision = torch.diag_embed(1 / self.floored_variance().view(shape))
        deviations, trace = [], torch.zeros(shape[0], dtype=torch.float64)
        for gram, moment in zip(sums.gram.split(_BLOCK), sums.moment.split(_BLOCK), strict=True):
            covariance = torch.linalg.inv(gram + precision)
            deviations.append((covariance @ (moment - (gram @ mean[..., None])[..., 0])[..., None])[..., 0])
            trace += (gram * covariance.mT).sum((0, 2, 3))
        self.coefficients = self.mean + torch.cat(deviations).view_as(self.coefficients)
        return trace * self.noise if len(trace) == len(self.noise) else torch.zeros_like(self.noise)
