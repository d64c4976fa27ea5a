"""CP and Tucker layers that combine the encoders, and the TensorLy tensors that they represent.

Both layers contract agent and action into one vector of coefficients, `Δs_d = Σ_j v_j(s, d) · c_j(n, a)`, so that
:mod:`persim_lightning.models.contraction` works for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.config import Ranks

# TensorLy is imported late, since commands that only predict do not need it.
if TYPE_CHECKING:
    from tensorly.cp_tensor import CPTensor
    from tensorly.tucker_tensor import TuckerTensor


class CPLayer(nn.Module):
    """`Δs_d = Σ_l u_l(n) · v_l(s, d) · w_l(a)`, l = 1 … R (PerSim, equation 3).

    Parameters
    ----------
    ranks : Ranks
        Three equal ranks.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        if len(set(ranks)) > 1:
            raise ConfigurationError(f"a CP factorization has one rank, not {tuple(ranks)}: use factorization 'tucker'")

    def coefficients(self, agent: Tensor, action: Tensor) -> Tensor:
        """Contract agent (M, ..., R) with action factors (M, ..., R): (M, ..., R)."""
        return agent * action

    def forward(self, agent: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Factors (M, B, R), (M, B, D, R), (M, B, R) -> predictions (M, B, D)."""
        return torch.matmul(state, self.coefficients(agent, action).unsqueeze(-1)).squeeze(-1)

    def as_tensor(self, agent: Tensor, state: Tensor, action: Tensor) -> CPTensor:
        """Convert the ensemble's mean to a TensorLy CP tensor of rank M·R.

        Parameters
        ----------
        agent : Tensor, shape (M, N, R)
        state : Tensor, shape (M, S, R)
            Rows are (state, coordinate) pairs.
        action : Tensor, shape (M, A, R)

        Returns
        -------
        CPTensor
            NumPy factors (N, M·R), (S, M·R), (A, M·R); dense shape (N, S, A).
        """
        from tensorly.cp_tensor import CPTensor

        members, _, rank = agent.shape
        factors = [factor.movedim(0, 1).flatten(1).double().numpy() for factor in (agent, state, action)]
        return CPTensor((np.full(members * rank, 1 / members), factors))


class TuckerLayer(nn.Module):
    """`Δs_d = Σ_ijk G_ijk · u_i(n) · v_j(s, d) · w_k(a)` with a learned core G for each member.

    Parameters
    ----------
    members : int
    ranks : Ranks
    """

    def __init__(self, members: int, ranks: Ranks) -> None:
        super().__init__()
        core = 0.1 * torch.randn(members, *ranks) / (ranks.agent * ranks.action) ** 0.5
        diagonal = torch.arange(max(ranks))
        # Start from a (wrapped) superdiagonal core, which is a CP model.
        core[:, diagonal % ranks.agent, diagonal % ranks.state, diagonal % ranks.action] += 1
        self.core = nn.Parameter(core)

    def coefficients(self, agent: Tensor, action: Tensor) -> Tensor:
        """Contract the core with agent (M, ..., R_n) and action factors (M, ..., R_a): (M, ..., R_s)."""
        return torch.einsum("mijk,m...i,m...k->m...j", self.core, agent, action)

    def forward(self, agent: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Factors (M, B, R_n), (M, B, D, R_s), (M, B, R_a) -> predictions (M, B, D)."""
        return torch.matmul(state, self.coefficients(agent, action).unsqueeze(-1)).squeeze(-1)

    def as_tensor(self, agent: Tensor, state: Tensor, action: Tensor) -> TuckerTensor:
        """Convert the ensemble's mean to a TensorLy Tucker tensor with a block-diagonal core.

        Parameters
        ----------
        agent : Tensor, shape (M, N, R_n)
        state : Tensor, shape (M, S, R_s)
            Rows are (state, coordinate) pairs.
        action : Tensor, shape (M, A, R_a)

        Returns
        -------
        TuckerTensor
            NumPy core (M·R_n, M·R_s, M·R_a) and factors (N, M·R_n), (S, M·R_s), (A, M·R_a); dense shape (N, S, A).
        """
        from tensorly.tucker_tensor import TuckerTensor

        members, *ranks = self.core.shape
        core = np.zeros([members * rank for rank in ranks])
        for member, block in enumerate(self.core.detach().double().cpu().numpy()):
            core[tuple(slice(member * rank, (member + 1) * rank) for rank in ranks)] = block / members
        factors = [factor.movedim(0, 1).flatten(1).double().numpy() for factor in (agent, state, action)]
        return TuckerTensor((core, factors))


def to_dense(tensor: CPTensor | TuckerTensor) -> np.ndarray:
    """Reconstruct the dense form of a factorized tensor with TensorLy."""
    import tensorly as tl
    from tensorly.cp_tensor import CPTensor

    dense: np.ndarray = tl.cp_to_tensor(tensor) if isinstance(tensor, CPTensor) else tl.tucker_to_tensor(tensor)
    return dense


def build_factorization(kind: str, members: int, ranks: Ranks) -> CPLayer | TuckerLayer:
    """Build the layer named 'cp' or 'tucker'."""
    if kind == "cp":
        return CPLayer(ranks)
    if kind == "tucker":
        return TuckerLayer(members, ranks)
    raise ConfigurationError(f"unknown factorization '{kind}': choose cp or tucker")
