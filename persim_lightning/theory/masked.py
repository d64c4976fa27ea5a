"""CP and Tucker decompositions of a tensor with missing cells.

One trajectory per agent visits a few per cent of the dynamics tensor. TensorLy's masked `parafac` fills the missing
cells with its current estimate and decomposes the dense tensor (expectation-maximization). When few cells are observed,
each sweep moves the factors only a little, so it needs thousands of sweeps. Here, the normal equations of alternating
least squares are summed over observed cells only, weighted by their number of rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from tensorly.cp_tensor import CPTensor
from tensorly.tucker_tensor import TuckerTensor
from torch import Tensor

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.config import Ranks
from persim_lightning.theory.least_squares import (
    FactorStatistics,
    relative_error,
    update_core,
    update_factors,
    update_states,
)
from persim_lightning.theory.observed_cells import ObservedCells

# Below this error, the residual of an exact decomposition is rounding errors.
_EXACT = 1e-13


class Completion(NamedTuple):
    """A decomposition of observed cells.

    Attributes
    ----------
    tensor : CPTensor or TuckerTensor
        NumPy factors of agents (N, R), states (S·D, R) and actions (A, R); dense shape (N, S·D, A).
    history : list of float
        Error after every sweep: weighted root mean square of the residual on observed cells, relative to the values'.
        Coordinates are scaled to root mean square 1.
    converged : bool
        Whether the error converged before the limit on sweeps.
    """

    tensor: CPTensor | TuckerTensor
    history: list[float]
    converged: bool


def complete(
    observed: ObservedCells,
    ranks: Ranks,
    factorization: str = "cp",
    *,
    ridge: float = 3.0,
    iterations: int = 200,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Completion:
    """Decompose the observed cells by weighted alternating least squares.

    A CP decomposition is treated as a Tucker decomposition whose core is a fixed superdiagonal.

    Parameters
    ----------
    observed : ObservedCells
    ranks : Ranks
        Three equal numbers for CP. For Tucker, limited to the tensor's shape.
    factorization : {'cp', 'tucker'}
    ridge : float
        Strength of a normal prior that pulls the factors of agents and of states toward their mean, so that agents with
        few rows stay near the population. 1 is empirical Bayes: the prior has the covariance of the estimated factors,
        and the noise is the last sweep's error. Scaling or mixing the factors does not change the pull. Values above 1
        can be better, because rows of a cell share a discretization error.
    iterations : int
        Limit on sweeps.
    tolerance : float
        Stop after a sweep that lowers the error by a smaller fraction.
    seed : int
        Seed of the initial factors.
    """
    core, agent, action = _initialize(observed, ranks, factorization, seed)
    squares = (observed.weight[:, None] * observed.value.square()).sum(0)
    scale = (squares / observed.weight.sum()).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    order = observed.state.argsort(stable=True)
    cells = ObservedCells(observed.shape, *(value[order] for value in observed[1:]))
    cells = cells._replace(value=cells.value / scale)
    state = cells.value.new_zeros(observed.shape[1], len(scale), core.shape[1])
    agent_statistics, state_statistics = (FactorStatistics.initial(rank) for rank in core.shape[:2])
    no_prior = torch.zeros(core.shape[2], core.shape[2], dtype=torch.float64)
    history: list[float] = []
    converged = False
    while len(history) < iterations and not converged:
        noise = ridge * history[-1] ** 2 if history else 0.0
        state, state_statistics = update_states(cells, core, agent, state, action, state_statistics.prior(noise))
        table = torch.einsum("ijk,ak->aij", core, action)
        agent, agent_statistics = update_factors(
            cells, cells.agent, agent, cells.action, table, state, agent_statistics.prior(noise)
        )
        table = torch.einsum("ijk,ni->nkj", core, agent)
        action, _ = update_factors(cells, cells.action, action, cells.agent, table, state, no_prior)
        if factorization == "tucker":
            core = update_core(cells, agent, state, action)
        history.append(relative_error(cells, core, agent, state, action))
        settled = len(history) > 1 and abs(history[-2] - history[-1]) <= tolerance * history[-2]
        converged = settled or history[-1] < _EXACT
    factors = [agent.numpy(), (state * scale[:, None]).flatten(0, 1).numpy(), action.numpy()]
    if factorization == "tucker":
        return Completion(TuckerTensor((core.numpy(), factors)), history, converged)
    return Completion(CPTensor((np.ones(core.shape[0]), factors)), history, converged)


def _initialize(observed: ObservedCells, ranks: Ranks, factorization: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Create the core (R_n, R_s, R_a) and random factors (N, R_n), (A, R_a); the first sweep computes the states'."""
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
    # Actions must differ from the start; agents are similar.
    agent = 1 + 0.3 * torch.randn(agents, ranks.agent, dtype=torch.float64, generator=generator)
    action = torch.randn(actions, ranks.action, dtype=torch.float64, generator=generator)
    return core, agent, action
