"""CP and Tucker decompositions of a tensor of which only some cells were seen.

One trajectory an agent fills a few per cent of the dynamics tensor. TensorLy's masked `parafac` fills the others in
with its own current guess and decomposes the whole (expectation-maximization): every sweep then moves the factors by
about the share of cells that was seen, so it needs thousands of sweeps, each over the dense tensor. Here the normal
equations of alternating least squares are summed over the seen cells alone, with the number of rows behind a cell as
its weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from tensorly.cp_tensor import CPTensor
from tensorly.tucker_tensor import TuckerTensor
from torch import Tensor

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.config import Ranks

# Keeps the normal equations regular where factors become parallel or a core has directions that nothing sees.
_JITTER = 1e-10
# The same for covariances of factors.
_FLAT = 1e-9
_TINY = torch.finfo(torch.float64).tiny / _JITTER
# Share by which the mean factor is held back, so that directions that no row determines do not wander.
_STAY = 1e-6
# What is left of an exact decomposition is rounding errors.
_EXACT = 1e-13
# Float64 numbers that the work on a part of the cells may hold: 32 MB.
_PART_NUMBERS = 1 << 22


class Observed(NamedTuple):
    """The seen cells of a tensor T[n, (s, d), a], coordinates d all together.

    Attributes
    ----------
    shape : tuple of int
        N agents, S state cells, A action cells.
    agent, state, action : Tensor, shape (E,), int64
        Where cell e lies.
    value : Tensor, shape (E, D), float64
        Mean of the rows in the cell.
    weight : Tensor, shape (E,), float64
        Number of these rows.
    """

    shape: tuple[int, int, int]
    agent: Tensor
    state: Tensor
    action: Tensor
    value: Tensor
    weight: Tensor


class Completion(NamedTuple):
    """A decomposition of seen cells, and how it was reached.

    Attributes
    ----------
    tensor : CPTensor or TuckerTensor
        NumPy factors for agents (N, R), states (S·D, R) and actions (A, R); dense shape (N, S·D, A).
    history : list of float
        Weighted root mean square of what is left of the seen cells, relative to the values', after every sweep. Each
        coordinate counts in units of its own root mean square.
    converged : bool
        Whether the error settled before the limit on sweeps.
    """

    tensor: CPTensor | TuckerTensor
    history: list[float]
    converged: bool


class _Spread(NamedTuple):
    """How a mode's factors differ from their mean: what a prior for them can be learned from.

    Attributes
    ----------
    covariance : Tensor, shape (R, R)
        Of the estimates.
    uncertainty : Tensor, shape (R, R)
        Mean posterior covariance of one estimate, in units of the noise.
    """

    covariance: Tensor
    uncertainty: Tensor

    @classmethod
    def unknown(cls, rank: int) -> _Spread:
        return cls(*torch.eye(rank, dtype=torch.float64).repeat(2, 1, 1))

    def prior(self, noise: float) -> Tensor:
        """Precision of a normal prior in units of the noise's, (R, R); zero without noise."""
        covariance = self.covariance + noise * self.uncertainty
        # A mode with fewer factors than ranks has a covariance that cannot be inverted.
        return noise * torch.linalg.inv(covariance + _FLAT * covariance.diagonal().clamp(min=_TINY).diag())


def observe(agent: Tensor, state: Tensor, action: Tensor, value: Tensor, shape: tuple[int, int, int]) -> Observed:
    """Average rows that fall into the same cell.

    Parameters
    ----------
    agent, state, action : Tensor, shape (B,), int64
        Cell of every row.
    value : Tensor, shape (B, D)
    shape : tuple of int
        N, S, A.

    Returns
    -------
    Observed
        Sorted by state, agent and action.
    """
    agents, _, actions = shape
    cell, index, count = torch.unique(
        (state * agents + agent) * actions + action, return_inverse=True, return_counts=True
    )
    weight = count.double()
    total = value.new_zeros(len(cell), value.shape[-1], dtype=torch.float64).index_add_(0, index, value.double())
    pair = cell // actions
    return Observed(shape, pair % agents, pair // agents, cell % actions, total / weight[:, None], weight)


def complete(
    observed: Observed,
    ranks: Ranks,
    factorization: str = "cp",
    *,
    ridge: float = 3.0,
    iterations: int = 200,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Completion:
    """Decompose the seen cells by weighted alternating least squares.

    A CP decomposition is a Tucker decomposition whose core is a fixed superdiagonal, so one code serves both.

    Parameters
    ----------
    observed : Observed
    ranks : Ranks
        Three equal numbers for CP; for Tucker, cut to the tensor's shape.
    factorization : {'cp', 'tucker'}
    ridge : float
        How strongly the factors of agents and of states are pulled toward their mean. At 1, as by a normal prior with
        the covariance that the factors are found to have, against the noise that the last sweep left (empirical
        Bayes): agents with few rows stay near the population, and the pull does not depend on how the factors are
        scaled or mixed. Rows in a cell share an error of binning, so more than 1 can be right.
    iterations : int
        Limit on sweeps.
    tolerance : float
        A sweep that lowers the error by a smaller share is the last.
    seed : int
        Of the initial factors.
    """
    core, agent, action = _initial(observed, ranks, factorization, seed)
    squares = (observed.weight[:, None] * observed.value.square()).sum(0)
    scale = (squares / observed.weight.sum()).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    order = observed.state.argsort(stable=True)
    cells = Observed(observed.shape, *(value[order] for value in observed[1:]))
    cells = cells._replace(value=cells.value / scale)
    state = cells.value.new_zeros(observed.shape[1], len(scale), core.shape[1])
    agents, states = _Spread.unknown(core.shape[0]), _Spread.unknown(core.shape[1])
    no_prior = torch.zeros(core.shape[2], core.shape[2], dtype=torch.float64)
    history: list[float] = []
    converged = False
    while len(history) < iterations and not converged:
        noise = ridge * history[-1] ** 2 if history else 0.0
        state, states = _update_states(cells, core, agent, state, action, states.prior(noise))
        table = torch.einsum("ijk,ak->aij", core, action)
        agent, agents = _update_vectors(cells, cells.agent, agent, cells.action, table, state, agents.prior(noise))
        table = torch.einsum("ijk,ni->nkj", core, agent)
        action, _ = _update_vectors(cells, cells.action, action, cells.agent, table, state, no_prior)
        if factorization == "tucker":
            core = _update_core(cells, agent, state, action)
        history.append(_relative_error(cells, core, agent, state, action))
        settled = len(history) > 1 and abs(history[-2] - history[-1]) <= tolerance * history[-2]
        converged = settled or history[-1] < _EXACT
    factors = [agent.numpy(), (state * scale[:, None]).flatten(0, 1).numpy(), action.numpy()]
    if factorization == "tucker":
        return Completion(TuckerTensor((core.numpy(), factors)), history, converged)
    return Completion(CPTensor((np.ones(core.shape[0]), factors)), history, converged)


def _initial(observed: Observed, ranks: Ranks, factorization: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Core (R_n, R_s, R_a) and random factors (N, R_n), (A, R_a); the first sweep makes the states' own."""
    if factorization not in ("cp", "tucker"):
        raise ConfigurationError(f"unknown factorization '{factorization}': choose cp or tucker")
    generator = torch.Generator().manual_seed(seed)
    agents, states, actions = observed.shape
    if factorization == "cp":
        if len(set(ranks)) > 1:
            raise ConfigurationError(f"a CP factorization has one rank, not {tuple(ranks)}: use factorization 'tucker'")
    else:
        states *= observed.value.shape[-1]
        ranks = Ranks(min(ranks.agent, agents), min(ranks.state, states), min(ranks.action, actions))
    core = torch.zeros(*ranks, dtype=torch.float64)
    diagonal = torch.arange(max(ranks))
    core[diagonal % ranks.agent, diagonal % ranks.state, diagonal % ranks.action] = 1
    # Actions must differ from the start; agents are mostly alike.
    agent = 1 + 0.3 * torch.randn(agents, ranks.agent, dtype=torch.float64, generator=generator)
    action = torch.randn(actions, ranks.action, dtype=torch.float64, generator=generator)
    return core, agent, action


def _parts(cells: Observed, numbers: int) -> Iterator[Observed]:
    """The cells in parts, for work that holds `numbers` float64 numbers for each of them."""
    size = max(1, _PART_NUMBERS // numbers)
    for start in range(0, len(cells.weight), size):
        yield Observed(cells.shape, *(value[start : start + size] for value in cells[1:]))


def _coefficients(cells: Observed, table: Tensor, agent: Tensor) -> Tensor:
    """Everything but the state contracted: table (A, R_n, R_s), agent (N, R_n) -> (E, R_s)."""
    return torch.bmm(agent[cells.agent].unsqueeze(1), table[cells.action]).squeeze(1)


def _update_states(
    cells: Observed, core: Tensor, agent: Tensor, state: Tensor, action: Tensor, prior: Tensor
) -> tuple[Tensor, _Spread]:
    """Least-squares state factors, (S, D, R_s): a cell's coordinates share one matrix of normal equations."""
    count, dim, rank = state.shape
    gram, right = state.new_zeros(count, rank, rank), state.new_zeros(count, rank, dim)
    table = torch.einsum("ijk,ak->aij", core, action)
    for part in _parts(cells, agent.shape[1] * (rank + 1) + 2 * rank * (rank + dim)):
        design = _coefficients(part, table, agent)
        weighted = (design * part.weight[:, None]).unsqueeze(2)
        gram.index_add_(0, part.state, weighted * design.unsqueeze(1))
        right.index_add_(0, part.state, weighted * part.value.unsqueeze(1))
    solved, spread = _solve(gram, right, state.mT, cells.state, prior)
    return solved.mT, spread


def _update_vectors(
    cells: Observed, index: Tensor, factor: Tensor, other: Tensor, table: Tensor, state: Tensor, prior: Tensor
) -> tuple[Tensor, _Spread]:
    """Least-squares factors of agents or actions.

    Parameters
    ----------
    cells : Observed
    index, other : Tensor, shape (E,), int64
        A cell's place along the mode that is updated, and along the other one.
    factor : Tensor, shape (I, R)
        The factor that is updated.
    table : Tensor, shape (J, R, R_s)
        The core contracted with the other mode's factor.
    state : Tensor, shape (S, D, R_s)
    prior : Tensor, shape (R, R)
    """
    (count, rank), (_, dim, width) = factor.shape, state.shape
    gram, right = factor.new_zeros(count, rank, rank), factor.new_zeros(count, rank, 1)
    start = 0
    for part in _parts(cells, rank * (width + rank) + dim * (width + 2 * rank)):
        place = slice(start, start := start + len(part.weight))
        root = part.weight.sqrt()[:, None]
        design = torch.bmm(state[part.state], table[other[place]].mT) * root.unsqueeze(2)
        gram.index_add_(0, index[place], torch.bmm(design.mT, design))
        right.index_add_(0, index[place], torch.bmm(design.mT, (part.value * root).unsqueeze(2)))
    solved, spread = _solve(gram, right, factor.unsqueeze(2), index, prior)
    return solved.squeeze(2), spread


def _solve(gram: Tensor, right: Tensor, factor: Tensor, index: Tensor, prior: Tensor) -> tuple[Tensor, _Spread]:
    """Factors and the mean toward which they are pulled, together.

    Parameters
    ----------
    gram, right : Tensor, shapes (I, R, R) and (I, R, Q)
        Normal equations.
    factor : Tensor, shape (I, R, Q)
        The factors before.
    index : Tensor, shape (E,), int64
        A cell's place along the mode.
    prior : Tensor, shape (R, R)
        Added to every `gram`: how strong the pull is.
    """
    seen = torch.bincount(index, minlength=len(factor)) > 0
    # A factor that no cell determines lands on the mean, even without a prior.
    pull = prior + _JITTER * gram[seen].mean(0).diagonal().clamp(min=_TINY).diag()
    inverse = torch.linalg.inv(gram + pull)
    own, share = inverse @ right, inverse @ pull
    # The mean m of `own + share @ m` is m itself. Its directions that no cell determines stay where they were.
    identity = torch.eye(len(pull), dtype=pull.dtype)
    free = identity - share[seen].mean(0)
    before = factor[seen].mean(0)
    mean = before + torch.linalg.solve(free + _STAY * identity, own[seen].mean(0) - free @ before)
    solved = own + share @ mean
    deviation = (solved[seen] - mean).transpose(0, 1).flatten(1)
    return solved, _Spread(deviation @ deviation.T / deviation.shape[1], inverse[seen].mean(0))


def _update_core(cells: Observed, agent: Tensor, state: Tensor, action: Tensor) -> Tensor:
    """Least-squares core, (R_n, R_s, R_a).

    The normal equations are `Σ_s (V_sᵀ V_s) ⊗ Σ_e∈s w_e z_e z_eᵀ`, where z_e = u(n_e) ⊗ w(a_e): no row of the design,
    as long as the core, is ever written out. Cells must be sorted by state.
    """
    count, dim, rank = state.shape
    width = agent.shape[1] * action.shape[1]
    gram, right = state.new_zeros(rank**2, width**2), state.new_zeros(rank, width)
    ends = torch.bincount(cells.state, minlength=count).cumsum(0).tolist()
    together = max(1, _PART_NUMBERS // (4 * width**2))
    for first in range(0, count, together):
        block = state[first : first + together]
        inner = state.new_zeros(len(block), width, width)
        weighted = state.new_zeros(len(block), dim, width)
        for offset in range(len(block)):
            own = slice(ends[first + offset - 1] if first + offset else 0, ends[first + offset])
            pairs = (agent[cells.agent[own]].unsqueeze(2) * action[cells.action[own]].unsqueeze(1)).flatten(1)
            root = cells.weight[own].sqrt()[:, None]
            pairs = pairs * root
            inner[offset] = pairs.T @ pairs
            weighted[offset] = (cells.value[own] * root).T @ pairs
        gram.addmm_(torch.bmm(block.mT, block).flatten(1).T, inner.flatten(1))
        right.addmm_(block.flatten(0, 1).T, weighted.flatten(0, 1))
    normal = gram.view(rank, rank, width, width).transpose(1, 2).reshape(rank * width, rank * width)
    diagonal = normal.diagonal()
    diagonal += _JITTER * diagonal.mean().clamp(min=_TINY)
    core = torch.linalg.solve(normal, right.flatten())
    return core.view(rank, agent.shape[1], action.shape[1]).transpose(0, 1).contiguous()


def _relative_error(cells: Observed, core: Tensor, agent: Tensor, state: Tensor, action: Tensor) -> float:
    table = torch.einsum("ijk,ak->aij", core, action)
    left = cells.value.new_zeros(())
    for part in _parts(cells, core.shape[1] * (agent.shape[1] + state.shape[1] + 1) + 2 * state.shape[1]):
        predicted = torch.bmm(state[part.state], _coefficients(part, table, agent).unsqueeze(2)).squeeze(2)
        left += (part.weight[:, None] * (part.value - predicted).square()).sum()
    total = (cells.weight[:, None] * cells.value.square()).sum()
    return float((left / total).sqrt()) if total > 0 else 0.0
