"""One agent's simulator: the population's, with agent and action factors contracted into the last layer.

The contraction is exact. With discrete actions the state network's output shrinks from D·R to D numbers per action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from persim_lightning.models.encoders import MemberEmbedding
from persim_lightning.models.rollout import rollout

if TYPE_CHECKING:
    from persim_lightning.models.simulator import Simulator


class AgentSimulator(nn.Module):
    """Predicts Δs of a single agent with all M members.

    Made by :meth:`persim_lightning.models.simulator.Simulator.personalize`; holds no reference to the population's
    agent factors.
    """

    def __init__(self, simulator: Simulator, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.members, self.state_dim, self.is_discrete = simulator.members, simulator.state_dim, simulator.is_discrete
        self.state_encoder, self.walls = simulator.state_encoder, simulator.walls
        self.action_encoder = None if simulator.is_discrete else simulator.action_encoder
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    weight: Tensor
    bias: Tensor

    @classmethod
    @torch.no_grad()
    def contract(cls, simulator: Simulator, factor: Tensor) -> AgentSimulator:
        """Fold an agent factor (M, R_agent) into the state encoder's last layer.

        The columns of the folded layer are (action, d) for discrete actions and (d, k) for continuous ones, with k
        running over the action rank.
        """
        weight, bias = simulator.state_encoder.mlp.head()
        shape = simulator.state_encoder.shape
        # (M, inputs, D, R_state): scaling the columns by delta_rms makes the output raw.
        scale = simulator.delta_rms[:, None]
        weight, bias = weight.unflatten(-1, shape) * scale, bias.unflatten(-1, shape) * scale
        if isinstance(simulator.action_encoder, MemberEmbedding):
            actions = simulator.action_encoder.table()
        else:
            rank = simulator.ranks.action
            actions = torch.eye(rank, device=factor.device, dtype=factor.dtype).expand(len(factor), rank, rank)
        # Coefficients are linear in the action factor, so unit vectors give the matrix (M, A or R_action, R_state).
        coefficients = simulator.factorization.coefficients(factor[:, None].expand(-1, actions.shape[1], -1), actions)
        equation = "mhdr,mar->mhad" if simulator.is_discrete else "mhdr,mar->mhda"
        weight = torch.einsum(equation, weight, coefficients).flatten(2)
        bias = torch.einsum(equation, bias, coefficients).flatten(2)
        return cls(simulator, weight, bias)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Δs in raw units: states (M, B, D), actions (B,) int64 or (B, A) -> (M, B, D)."""
        inputs = self.state_encoder.mlp.head_inputs(self.state_encoder.inputs(states))
        output = torch.baddbmm(self.bias, inputs, self.weight)
        if self.action_encoder is None:
            table = output.unflatten(-1, (-1, self.state_dim))
            index = actions[None, :, None, None].expand(self.members, -1, 1, self.state_dim)
            return table.gather(2, index).squeeze(2)
        action = self.action_encoder(actions.expand(self.members, *actions.shape))
        return torch.matmul(output.unflatten(-1, (self.state_dim, -1)), action.unsqueeze(-1)).squeeze(-1)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Next states: (M, B, D), (B,)|(B, A) -> (M, B, D)."""
        following: Tensor = self.walls(states + self(states, actions))
        return following

    @torch.no_grad()
    def rollout(self, states: Tensor, actions: Tensor) -> Tensor:
        """Open-loop rollouts: states (B, D), actions (B, H)|(B, H, A) -> (M, B, H+1, D)."""
        return rollout(self.step, self.members, states, actions)
