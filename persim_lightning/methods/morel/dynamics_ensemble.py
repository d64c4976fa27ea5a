"""MOReL's model: an ensemble of plain MLPs that predict Δs (Kidambi et al., 2020, https://arxiv.org/abs/2005.05951).

It does not distinguish agents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import TableError
from persim_lightning.models.layers import MemberMLP
from persim_lightning.models.scaling import Scales
from persim_lightning.training.chunks import one_cycle_adam

_RATE = 1e-3
# Rows per batch when computing disagreement.
_CHUNK = 4096


class DynamicsEnsemble(nn.Module):
    """M MLPs with two hidden layers of ReLUs, from standardized (s, a) to Δs in units of its root mean square.

    Parameters
    ----------
    members : int
        M.
    width : int
        Width of the hidden layers.
    scales : Scales
        Normalization constants of the training set.
    """

    def __init__(self, members: int, width: int, scales: Scales) -> None:
        super().__init__()
        self.members, self.scales = members, scales
        state_dim = len(scales.state_mean)
        widths = [scales.states_size + scales.actions_size, width, width, state_dim]
        self.net = MemberMLP(members, widths, F.relu)

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict normalized Δs of every member: (M, B, in) -> (M, B, D)."""
        predicted: Tensor = self.net(inputs)
        return predicted

    @torch.no_grad()
    def deltas(self, states: Tensor, actions: Tensor) -> Tensor:
        """Predict normalized Δs of every member: states (B, D), actions (B,)|(B, A) -> (M, B, D)."""
        predicted: Tensor = self(self.scales(states, actions).expand(self.members, -1, -1))
        return predicted

    def disagreement(self, states: Tensor, actions: Tensor) -> Tensor:
        """Compute disc(s, a) = max over i, j of ‖f_i - f_j‖ in normalized units: (B, D), (B,)|(B, A) -> (B,)."""
        parts = zip(states.split(_CHUNK), actions.split(_CHUNK), strict=True)
        return torch.cat([discrepancy(self.deltas(*part)) for part in parts])


def discrepancy(deltas: Tensor) -> Tensor:
    """Compute the largest distance between predictions of two members: (M, B, D) -> (B,)."""
    return (deltas[:, None] - deltas[None]).norm(dim=-1).amax((0, 1))


def fit_dynamics_ensemble(
    trajectories: Trajectories, *, members: int, width: int, batch_size: int, steps: int, seed: int
) -> DynamicsEnsemble:
    """Train the members on all transitions, each with different initial weights and order of batches.

    Parameters
    ----------
    trajectories : Trajectories
    members, width : int
        See :class:`DynamicsEnsemble`.
    batch_size : int
        Transitions of a gradient step of each member, at most the size of the table.
    steps : int
        Gradient steps.
    seed : int

    Raises
    ------
    TableError
        If there is no transition.
    """
    rows, _ = trajectories.split_rows(0.0)
    if not len(rows):
        raise TableError("no trajectory has two rows: dynamics cannot be learned")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        schema = trajectories.schema
        scales = Scales(schema.state_dim, schema.action_dim, schema.num_actions)
        scales.set(trajectories.statistics(rows))
        model = DynamicsEnsemble(members, width, scales)
    generator = torch.Generator().manual_seed(seed)
    inputs = scales(trajectories.state[rows], trajectories.action[rows])
    targets = trajectories.delta[rows] / scales.delta_rms
    optimizer, scheduler = one_cycle_adam(model.parameters(), _RATE, steps)
    for _ in range(steps):
        if len(rows) > batch_size:
            index = torch.randint(len(rows), (members, batch_size), generator=generator)
            batch, target = inputs[index], targets[index]
        else:
            batch, target = inputs.expand(members, -1, -1), targets
        optimizer.zero_grad()
        # Sum over members, so that their gradients are independent.
        loss = (model(batch) - target).square().mean((1, 2)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
    return model.eval().requires_grad_(False)
