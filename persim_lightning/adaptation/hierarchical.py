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
from persim_lightning.support.sampling import thinned
from persim_lightning.types import Chains, Transitions

# Rounds that alternate between noise and coefficients at most: on sums, which is fast, and on chains, which are
# linearized in each; and the relative change of the noise below which they end.
_ROUNDS, _CHAIN_ROUNDS, _SETTLED = 60, 10, 0.005
# First rounds, in which the prior stays wide: while the noise is taken for too large, it would shrink agents to their
# mean, and would not let them go again.
_WARM = 3
# Rounds of expectation maximization for the prior in each later one.
_PRIOR_ROUNDS = 12
# Share of the observations that coefficients can use up at most, as far as the noise is concerned.
_MOST_USED = 0.75
# Weight of the prior of the mean's coefficients besides the intercept, in rows of data.
_RIDGE = 1.0
# Smallest variances, relative to the noise: of coefficients, so that they can be inverted, and of the noise itself.
_VARIANCE_FLOOR, _NOISE_FLOOR = 1e-8, 1e-10
# Variance of agents' coefficients at the start, relative to the mean square of Δs: wide where agents have so many rows
# for each varying coefficient, so that noise is not taken for too large; narrow where wide ones would fit the noise.
_WIDE, _NARROW, _ROWS_EACH = 10.0, 0.1, 3
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
        self._set_first_variance(0.0)

    def _set_first_variance(self, rows: float) -> None:
        """Start with a wide prior where an agent's `rows` determine its coefficients, with a narrow one otherwise."""
        enough = rows >= _ROWS_EACH * int(self._varying[0].sum())
        self._warm = _WARM if enough else 0
        first = _WIDE if enough else _NARROW
        self.variance = torch.where(self._varying, first * self.noise[:, None], 0.0)

    def run(self) -> None:
        first = next(iter(self._batches()), None)
        if first is None:
            return
        if isinstance(first, Transitions):
            sums = self._transition_sums()
            self._set_first_variance(self._count / self._simulator.num_agents)
            for number in range(self._warm + _ROUNDS):
                scaled = _Sums(sums.gram / self.noise[:, None, None], sums.moment / self.noise[:, None])
                used = self._estimate(scaled, _PRIOR_ROUNDS if number >= self._warm else 0)
                fitted = (self.coefficients[..., None, :] @ sums.gram @ self.coefficients[..., None])[..., 0, 0]
                error = self._square - 2 * (self.coefficients * sums.moment).sum((0, 2)) + fitted.sum(0)
                settled = self._settled(error / max(self._count, 1e-9), used / max(self._count, 1e-9))
                if settled and number > self._warm:
                    break
            return
        scored = sum(int(batch.scored.any(-1).sum()) for batch in self._batches() if isinstance(batch, Chains))
        self._set_first_variance(self._weight * scored / self._simulator.num_agents)
        for number in range(self._warm + _CHAIN_ROUNDS):
            used = self._estimate(self._chain_sums(), _PRIOR_ROUNDS if number >= self._warm else 0)
            self._simulator.agent_encoder.deviation.copy_(self.coefficients.flatten(1)[None])
            error = residual_variance(self._simulator, self._batches())[0].double()
            settled = self._settled(error, used.sum() / max(self._count, 1e-9))
            if settled and (number > self._warm or not bool(self._varying.any())):
                break

    def _settled(self, error: Tensor, used: Tensor) -> bool:
        """Update the noise from squared errors (D,) and the share of observations that coefficients used up."""
        noise = (error / (1 - used.clamp(max=_MOST_USED))).clamp(min=_NOISE_FLOOR)
        settled = bool(((noise / self.noise).log().abs() < _SETTLED).all())
        self.noise = noise
        return settled

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
        self._count = 0.0
        for batch in self._batches():
            assert isinstance(batch, Chains)
            self._count += self._weight * int(batch.scored.sum())
            linear = linearized(self._simulator, batch, factors[:, batch.agent])
            noise = self.noise.repeat(batch.duration.shape[1])[:, None]
            weighted = self._weight * linear.design[0] / noise
            gram.index_add_(0, batch.agent, weighted.mT @ linear.design[0])
            moment.index_add_(0, batch.agent, (weighted * linear.target[0, ..., None]).sum(1))
        return _Sums(gram[:, None], moment[:, None])

    def _estimate(self, sums: _Sums, rounds: int) -> Tensor:
        """Update mean, variance and coefficients; return how many observations agents' coefficients use up, (K,).

        Without rounds of expectation maximization, the prior's variance stays.
        """
        shape = sums.moment.shape[1:]
        if not bool(self._varying.any()):
            total = sums.gram.sum(0) + torch.diag_embed(self._penalty(0.0).view(shape))
            self.mean = torch.linalg.solve(total, sums.moment.sum(0)).view_as(self.mean)
            self.coefficients = self.mean.expand_as(self.coefficients)
            return torch.zeros(shape[0], dtype=torch.float64)
        some = thinned(torch.arange(len(sums.gram)), _PRIOR_AGENTS)
        part = _Sums(sums.gram[some], sums.moment[some])
        rows = float(part.gram[:, 0, 0, 0].mean() * self.noise[0])
        for _ in range(max(1, rounds)):
            variance = self.floored_variance().view(shape)
            covariance = _covariance(part.gram, variance)
            # Generalized least squares for the mean, with agents' deviations integrated out.
            reduced = part.gram - part.gram @ covariance @ part.gram
            target = part.moment - (part.gram @ covariance @ part.moment[..., None])[..., 0]
            penalty = torch.diag_embed(self._penalty(rows).view(shape))
            mean = torch.linalg.solve(reduced.sum(0) + penalty, target.sum(0))
            deviation = (covariance @ (part.moment - (part.gram @ mean[..., None])[..., 0])[..., None])[..., 0]
            found = (deviation.square() + covariance.diagonal(dim1=-2, dim2=-1)).sum(0) / (len(some) + 1)
            if rounds:
                self.variance = torch.where(self._varying, found.view_as(self.mean), 0.0)
        self.mean = mean.view_as(self.mean)
        variance = self.floored_variance().view(shape)
        deviations, trace = [], torch.zeros(shape[0], dtype=torch.float64)
        for gram, moment in zip(sums.gram.split(_BLOCK), sums.moment.split(_BLOCK), strict=True):
            covariance = _covariance(gram, variance)
            deviations.append((covariance @ (moment - (gram @ mean[..., None])[..., 0])[..., None])[..., 0])
            trace += (gram * covariance.mT).sum((0, 2, 3))
        self.coefficients = self.mean + torch.cat(deviations).view_as(self.coefficients)
        return trace


def _covariance(gram: Tensor, variance: Tensor) -> Tensor:
    """Invert gram (N, K, r, r) plus the inverse of variances (K, r), which may be tiny or large beside it."""
    root = variance.sqrt()
    scaled = root[..., :, None] * gram * root[..., None, :]
    unit = torch.eye(root.shape[-1], dtype=gram.dtype)
    return root[..., :, None] * torch.linalg.inv(unit + scaled) * root[..., None, :]
