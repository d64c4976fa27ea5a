"""Updates of alternating least squares on observed cells, each with normal equations summed over the cells.

Sizes: E cells, N agents, S state cells, A action cells, D coordinates; ranks R_n, R_s, R_a. Factors are `agent`
(N, R_n), `state` (S, D, R_s) and `action` (A, R_a); the core is (R_n, R_s, R_a).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.theory.observed_cells import CHUNK_NUMBERS, ObservedCells

# Regularizes normal equations that are singular: parallel factors, or core entries that no cell determines.
_JITTER = 1e-10
# Regularizes covariances of factors.
_COVARIANCE_JITTER = 1e-9
_TINY = torch.finfo(torch.float64).tiny / _JITTER
# Damps updates of the mean factor, so that directions that no row determines stay constant.
_MEAN_DAMPING = 1e-6


class FactorStatistics(NamedTuple):
    """Variation of a mode's factors around their mean, from which their prior is estimated.

    Attributes
    ----------
    covariance : Tensor, shape (R, R)
        Covariance of the estimates.
    uncertainty : Tensor, shape (R, R)
        Posterior covariance of one estimate, averaged, in units of the noise variance.
    """

    covariance: Tensor
    uncertainty: Tensor

    @classmethod
    def initial(cls, rank: int) -> FactorStatistics:
        return cls(*torch.eye(rank, dtype=torch.float64).repeat(2, 1, 1))

    def prior(self, noise: float) -> Tensor:
        """Return the precision (R, R) of a normal prior, in units of the noise's precision; zero without noise."""
        covariance = self.covariance + noise * self.uncertainty
        # The covariance is singular if a mode has fewer factors than ranks.
        regularization = _COVARIANCE_JITTER * covariance.diagonal().clamp(min=_TINY).diag()
        return noise * torch.linalg.inv(covariance + regularization)


def update_states(
    cells: ObservedCells, core: Tensor, agent: Tensor, state: Tensor, action: Tensor, prior: Tensor
) -> tuple[Tensor, FactorStatistics]:
    """Compute least-squares state factors (S, D, R_s). All coordinates of a state share one Gram matrix."""
    count, dim, rank = state.shape
    gram, right = state.new_zeros(count, rank, rank), state.new_zeros(count, rank, dim)
    table = torch.einsum("ijk,ak->aij", core, action)
    for chunk in cells.chunks(agent.shape[1] * (rank + 1) + 2 * rank * (rank + dim)):
        design = _coefficients(chunk, table, agent)
        weighted = (design * chunk.weight[:, None]).unsqueeze(2)
        gram.index_add_(0, chunk.state, weighted * design.unsqueeze(1))
        right.index_add_(0, chunk.state, weighted * chunk.value.unsqueeze(1))
    solution, statistics = _solve(gram, right, state.mT, cells.state, prior)
    return solution.mT, statistics


def update_factors(
    cells: ObservedCells, index: Tensor, factor: Tensor, other: Tensor, table: Tensor, state: Tensor, prior: Tensor
) -> tuple[Tensor, FactorStatistics]:
    """Compute least-squares factors of agents or of actions.

    Parameters
    ----------
    cells : ObservedCells
    index, other : Tensor, shape (E,), int64
        Each cell's index in the updated mode and in the other mode (agents or actions).
    factor : Tensor, shape (I, R)
        The factor to update.
    table : Tensor, shape (J, R, R_s)
        The core contracted with the other mode's factor.
    state : Tensor, shape (S, D, R_s)
    prior : Tensor, shape (R, R)
    """
    (count, rank), (_, dim, width) = factor.shape, state.shape
    gram, right = factor.new_zeros(count, rank, rank), factor.new_zeros(count, rank, 1)
    start = 0
    for chunk in cells.chunks(rank * (width + rank) + dim * (width + 2 * rank)):
        rows = slice(start, start := start + len(chunk.weight))
        root = chunk.weight.sqrt()[:, None]
        design = torch.bmm(state[chunk.state], table[other[rows]].mT) * root.unsqueeze(2)
        gram.index_add_(0, index[rows], torch.bmm(design.mT, design))
        right.index_add_(0, index[rows], torch.bmm(design.mT, (chunk.value * root).unsqueeze(2)))
    solution, statistics = _solve(gram, right, factor.unsqueeze(2), index, prior)
    return solution.squeeze(2), statistics


def _coefficients(cells: ObservedCells, table: Tensor, agent: Tensor) -> Tensor:
    """Contract the core with agents and actions: table (A, R_n, R_s), agent (N, R_n) -> (E, R_s)."""
    return torch.bmm(agent[cells.agent].unsqueeze(1), table[cells.action]).squeeze(1)


def _solve(
    gram: Tensor, right: Tensor, factor: Tensor, index: Tensor, prior: Tensor
) -> tuple[Tensor, FactorStatistics]:
    """Solve for the factors and, jointly, for the mean toward which the prior pulls them.

    Parameters
    ----------
    gram, right : Tensor, shapes (I, R, R) and (I, R, Q)
        Normal equations.
    factor : Tensor, shape (I, R, Q)
        The previous factors.
    index : Tensor, shape (E,), int64
        Each cell's index in the mode.
    prior : Tensor, shape (R, R)
        Precision of the prior, added to every `gram`.
    """
    seen = torch.bincount(index, minlength=len(factor)) > 0
    # With the jitter, a factor that no cell determines becomes the mean, even without a prior.
    precision = prior + _JITTER * gram[seen].mean(0).diagonal().clamp(min=_TINY).diag()
    inverse = torch.linalg.inv(gram + precision)
    offset, slope = inverse @ right, inverse @ precision
    # Factors are `offset + slope @ mean`, and their mean is `mean`. Where no cell determines it, it stays as it was.
    identity = torch.eye(len(precision), dtype=precision.dtype)
    system = identity - slope[seen].mean(0)
    before = factor[seen].mean(0)
    step = torch.linalg.solve(system + _MEAN_DAMPING * identity, offset[seen].mean(0) - system @ before)
    mean = before + step
    solution = offset + slope @ mean
    deviation = (solution[seen] - mean).transpose(0, 1).flatten(1)
    return solution, FactorStatistics(deviation @ deviation.T / deviation.shape[1], inverse[seen].mean(0))


def update_core(cells: ObservedCells, agent: Tensor, state: Tensor, action: Tensor) -> Tensor:
    """Compute the least-squares core, (R_n, R_s, R_a). Cells must be sorted by state.

    The normal equations are `Σ_s (V_sᵀ V_s) ⊗ Σ_e∈s w_e z_e z_eᵀ`, where z_e = u(n_e) ⊗ w(a_e). So the design matrix,
    which has a column for every entry of the core, is never computed.
    """
    count, dim, rank = state.shape
    width = agent.shape[1] * action.shape[1]
    gram, right = state.new_zeros(rank**2, width**2), state.new_zeros(rank, width)
    ends = torch.bincount(cells.state, minlength=count).cumsum(0).tolist()
    block_size = max(1, CHUNK_NUMBERS // (4 * width**2))
    for first in range(0, count, block_size):
        block = state[first : first + block_size]
        inner = state.new_zeros(len(block), width, width)
        weighted = state.new_zeros(len(block), dim, width)
        for offset in range(len(block)):
            rows = slice(ends[first + offset - 1] if first + offset else 0, ends[first + offset])
            pairs = (agent[cells.agent[rows]].unsqueeze(2) * action[cells.action[rows]].unsqueeze(1)).flatten(1)
            root = cells.weight[rows].sqrt()[:, None]
            pairs = pairs * root
            inner[offset] = pairs.T @ pairs
            weighted[offset] = (cells.value[rows] * root).T @ pairs
        gram.addmm_(torch.bmm(block.mT, block).flatten(1).T, inner.flatten(1))
        right.addmm_(block.flatten(0, 1).T, weighted.flatten(0, 1))
    normal = gram.view(rank, rank, width, width).transpose(1, 2).reshape(rank * width, rank * width)
    diagonal = normal.diagonal()
    diagonal += _JITTER * diagonal.mean().clamp(min=_TINY)
    core = torch.linalg.solve(normal, right.flatten())
    return core.view(rank, agent.shape[1], action.shape[1]).transpose(0, 1).contiguous()


def relative_error(cells: ObservedCells, core: Tensor, agent: Tensor, state: Tensor, action: Tensor) -> float:
    """Return the weighted root mean square of the residual, relative to that of the values."""
    table = torch.einsum("ijk,ak->aij", core, action)
    residual = cells.value.new_zeros(())
    for chunk in cells.chunks(core.shape[1] * (agent.shape[1] + state.shape[1] + 1) + 2 * state.shape[1]):
        predicted = torch.bmm(state[chunk.state], _coefficients(chunk, table, agent).unsqueeze(2)).squeeze(2)
        residual += (chunk.weight[:, None] * (chunk.value - predicted).square()).sum()
    total = (cells.weight[:, None] * cells.value.square()).sum()
    return float((residual / total).sqrt()) if total > 0 else 0.0
