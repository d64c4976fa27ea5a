"""Tensor completion as a simulator: low rank without neural networks.

By PerSim's equation 3, the dynamics tensor, agents × (states × coordinates) × actions, has a low rank. The classical
way to complete it is to bin the data and to decompose the observed cells; Δs is then read from the bin nearest to a
state, or interpolated between the nearest bins. Networks generalize over states and actions instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tensorly.cp_tensor import CPTensor
from tensorly.tucker_tensor import TuckerTensor
from torch import Tensor, nn

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.config import Ranks
from persim_lightning.models.rollout import rollout
from persim_lightning.theory.cells import Cells
from persim_lightning.theory.masked import Completion, complete
from persim_lightning.theory.observed_cells import average_rows

# Largest number of neighbors in an interpolation; in many dimensions D + 1 would be too many.
_NEIGHBORS = 8


@dataclass(frozen=True)
class CompletionSettings:
    """Settings of bins, decomposition and interpolation.

    The defaults gave the best rollouts over held-out tails of training trajectories.

    Attributes
    ----------
    state_cells : int, optional
        S; by default five times the square root of the number of rows.
    action_cells : int
        Number of cells of continuous actions; every discrete action is a cell.
    ridge : float
        Shrinkage of agents and states toward their means, see :func:`persim_lightning.theory.masked.complete`.
    iterations : int
        Maximum number of sweeps of alternating least squares.
    tolerance : float
        Stop when a sweep lowers the error by a smaller share.
    interpolate : bool
        Interpolate between the nearest cells; otherwise use the nearest one.
    """

    state_cells: int | None = None
    action_cells: int = 64
    ridge: float = 3.0
    iterations: int = 100
    tolerance: float = 1e-4
    interpolate: bool = True


class CompletionSimulator(nn.Module):
    """Rolls out a completed tensor without forming the dense tensor.

    Parameters
    ----------
    tensor : CPTensor or TuckerTensor
        Dense shape (N, S·D, A), raw units.
    states : Cells
    actions : Cells or None
        None for discrete actions.
    delta_rms : Tensor, shape (D,)
        Root mean square of the training set's Δs.
    interpolate : bool
    """

    delta_rms: Tensor
    core: Tensor
    agent: Tensor
    state: Tensor
    action: Tensor

    def __init__(
        self,
        tensor: CPTensor | TuckerTensor,
        states: Cells,
        actions: Cells | None,
        delta_rms: Tensor,
        interpolate: bool = True,
    ) -> None:
        super().__init__()
        self.states, self.actions, self.interpolate = states, actions, interpolate
        outer, (agent, state, action) = tensor
        # A CP tensor's weights are the superdiagonal of its core.
        core = torch.from_numpy(np.asarray(outer))
        if core.ndim == 1:
            core = torch.diag_embed(torch.diag(core))
        self.register_buffer("delta_rms", delta_rms)
        self.register_buffer("core", core.float())
        self.register_buffer("agent", torch.from_numpy(agent).float())
        self.register_buffer("state", torch.from_numpy(state).float().view(-1, len(delta_rms), state.shape[-1]))
        self.register_buffer("action", torch.from_numpy(action).float())

    @classmethod
    def from_state(cls, state: dict[str, Tensor], interpolate: bool) -> CompletionSimulator:
        """Restore from a `state_dict`.

        Raises
        ------
        KeyError
            If an entry is missing.
        """

        def cells(name: str) -> Cells | None:
            parts = [f"{name}.{part}" for part in ("mean", "std", "center")]
            return Cells(*(state[part] for part in parts)) if parts[0] in state else None

        states = cells("states")
        if states is None:
            raise KeyError("states.mean")
        factors = [state["agent"], state["state"].flatten(0, 1), state["action"]]
        tensor = TuckerTensor((state["core"].numpy(), [factor.numpy() for factor in factors]))
        return cls(tensor, states, cells("actions"), state["delta_rms"], interpolate)

    def _look_up(self, cells: Cells, factor: Tensor, points: Tensor) -> Tensor:
        """Interpolate factors at points, (..., X) -> (..., *factor.shape[1:]); Δs is linear in them."""
        if not self.interpolate:
            return factor[cells.nearest(points)[1][..., 0]]
        weight, index = cells.weigh(points, min(points.shape[-1] + 1, _NEIGHBORS))
        return torch.einsum("...k,...kx->...x", weight, factor.flatten(1)[index]).unflatten(-1, factor.shape[1:])

    @torch.no_grad()
    def rollout(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Open-loop rollouts.

        Parameters
        ----------
        agents : Tensor, shape (B,), int64
        states : Tensor, shape (B, D)
            Initial states.
        actions : Tensor, shape (B, H) int64 or (B, H, A)

        Returns
        -------
        Tensor, shape (1, B, H+1, D)
            Starts with the initial state.
        """
        action = self.action[actions] if self.actions is None else self._look_up(self.actions, self.action, actions)
        coefficients = torch.einsum("ijk,bi,bhk->bhj", self.core, self.agent[agents], action)

        def step(state: Tensor, coefficient: Tensor) -> Tensor:
            factor = self._look_up(self.states, self.state, state)
            return state + (factor @ coefficient.unsqueeze(-1)).squeeze(-1)

        return rollout(step, 1, states, coefficients)


def fit_completion(
    trajectories: Trajectories,
    rows: Tensor,
    ranks: Ranks,
    factorization: str = "cp",
    settings: CompletionSettings | None = None,
    seed: int = 0,
) -> tuple[CompletionSimulator, Completion]:
    """Bin transitions, complete their tensor, and build a simulator.

    Parameters
    ----------
    trajectories : Trajectories
    rows : Tensor, int64
        Rows at which transitions of the training set start.
    ranks : Ranks
    factorization : {'cp', 'tucker'}
    settings : CompletionSettings, optional
    seed : int
        Seed of the cells and of the decomposition.
    """
    chosen = settings or CompletionSettings()
    batch = trajectories.transitions(rows, trajectories.row_agent())
    states = Cells.fit(batch.state, chosen.state_cells or round(5 * len(rows) ** 0.5), seed)
    actions, action, count = None, batch.action, trajectories.schema.num_actions
    if count is None:
        actions = Cells.fit(batch.action, chosen.action_cells, seed)
        action, count = actions.assign(batch.action), len(actions.center)
    shape = (trajectories.num_agents, len(states.center), count)
    completion = complete(
        average_rows(batch.agent, states.assign(batch.state), action, batch.delta, shape),
        ranks,
        factorization,
        ridge=chosen.ridge,
        iterations=chosen.iterations,
        tolerance=chosen.tolerance,
        seed=seed,
    )
    scale = trajectories.statistics(rows).delta_rms
    return CompletionSimulator(completion.tensor, states, actions, scale, chosen.interpolate), completion
