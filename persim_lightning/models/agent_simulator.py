"""The simulators of a few agents: the population's, with agent and action factors contracted into the last layer.

The contraction is exact: with discrete actions the state network's output shrinks from D·R to D numbers per action, and
standardizing the state is folded into the first layer. Arrays lie feature by feature, rows last, and every layer writes
into a buffer of its own: with networks this small, memory traffic costs as much as the products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from persim_lightning.models.encoders import MemberEmbedding
from persim_lightning.models.rollout import rollout

if TYPE_CHECKING:
    from persim_lightning.models.encoders import StateEncoder
    from persim_lightning.models.simulator import Simulator

# In place: a new array for every activation costs more than computing it.
_gelu_ = torch.ops.aten.gelu_


class AgentSimulator(nn.Module):
    """Predicts Δs of G agents with all M members; for inference only.

    Made by :meth:`persim_lightning.models.simulator.Simulator.personalize`; holds no factor of any other agent.

    Parameters
    ----------
    simulator : Simulator
    factors : Tensor, shape (M, G, R_agent)
        Factors of the agents.
    """

    @torch.no_grad()
    def __init__(self, simulator: Simulator, factors: Tensor) -> None:
        super().__init__()
        self.members, self.state_dim, self.num_agents = simulator.members, simulator.state_dim, factors.shape[1]
        self.walls, self.angles = simulator.walls, simulator.state_encoder.angles
        self.action_encoder = None if simulator.is_discrete else simulator.action_encoder
        layers, head = _unstandardized(simulator.state_encoder)
        self._depth = len(layers)
        for index, (weight, bias) in enumerate(layers):
            self.register_buffer(f"weight{index}", weight.mT.contiguous())
            self.register_buffer(f"bias{index}", bias.mT.contiguous())
        weight, bias = (_contract(part, simulator, factors) for part in head)
        hidden = weight.shape[-1] - simulator.state_encoder.inputs_dim
        self.register_buffer("head_hidden", weight[..., :hidden].contiguous())
        self.register_buffer("head_inputs", weight[..., hidden:].contiguous())
        self.register_buffer("head_bias", bias)
        self._arrays: list[Tensor] = []

    head_hidden: Tensor
    head_inputs: Tensor
    head_bias: Tensor

    def hidden_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weights (M, out, in) and biases (M, out, 1) of the state network's hidden layers, on raw inputs."""
        return [(getattr(self, f"weight{index}"), getattr(self, f"bias{index}")) for index in range(self._depth)]

    def forward(self, states: Tensor, actions: Tensor, agents: Tensor | None = None) -> Tensor:
        """Δs in raw units.

        Parameters
        ----------
        states : Tensor, shape (M, B, D)
            Fastest where rows lie last in memory, as in what :meth:`step` returns.
        actions : Tensor, shape (B,) int64 or (B, A)
        agents : Tensor, shape (B,), int64, optional
            Which of the G agents each row belongs to, ascending; may be left out where G = 1.

        Returns
        -------
        Tensor, shape (M, B, D)
        """
        output = self._head(states.mT, agents)
        rows = output.shape[-1]
        if self.action_encoder is None:
            table = output.view(self.members, -1, self.state_dim, rows)
            index = actions.expand(self.members, 1, self.state_dim, rows)
            return table.gather(1, index).squeeze(1).mT
        action = self.action_encoder(actions.expand(self.members, *actions.shape))
        return (output.view(self.members, self.state_dim, -1, rows) * action.mT[:, None]).sum(2).mT

    def _head(self, states: Tensor, agents: Tensor | None) -> Tensor:
        """(M, D, B) -> what the actions select or multiply, (M, ·, B)."""
        inputs = states
        if self.angles:
            angles = states[:, self.angles]
            inputs = torch.cat((states, angles.sin(), angles.cos()), dim=1)
        *layers, direct, output = self._workspace(states)
        features = inputs
        for (weight, bias), out in zip(self.hidden_layers(), layers, strict=True):
            features = _gelu_(torch.baddbmm(bias, weight, features, out=out))
        start = 0
        for group, size in enumerate(self._sizes(agents, states.shape[-1])):
            rows = slice(start, start + size)
            start += size
            torch.baddbmm(self.head_bias[group], self.head_inputs[group], inputs[..., rows], out=direct[..., rows])
            if layers:
                part = direct[..., rows]
                torch.baddbmm(part, self.head_hidden[group], features[..., rows], out=output[..., rows])
        return output if layers else direct

    def _sizes(self, agents: Tensor | None, rows: int) -> list[int]:
        if self.num_agents == 1:
            return [rows]
        if agents is None:
            raise ValueError(f"the simulator holds {self.num_agents} agents: say which one each row belongs to")
        return torch.bincount(agents, minlength=self.num_agents).tolist()

    def _workspace(self, states: Tensor) -> list[Tensor]:
        """Arrays that the layers write into, kept while the number of rows stays the same."""
        rows, inference = states.shape[-1], torch.is_inference_mode_enabled()
        # What was made in inference mode cannot be written to outside of it.
        like, old = self.head_bias, self._arrays[0] if self._arrays else None
        if (
            old is None
            or (old.shape[-1], old.is_inference()) != (rows, inference)
            or (old.dtype, old.device) != (like.dtype, like.device)
        ):
            widths = [weight.shape[1] for weight, _ in self.hidden_layers()]
            widths += 2 * [self.head_bias.shape[2]]
            self._arrays = [self.head_bias.new_empty(self.members, width, rows) for width in widths]
        return self._arrays

    @torch.no_grad()
    def step(self, states: Tensor, actions: Tensor, agents: Tensor | None = None) -> Tensor:
        """Next states; shapes as for :meth:`forward`."""
        following: Tensor = self.walls(states + self(states, actions, agents))
        return following

    @torch.no_grad()
    def rollout(self, states: Tensor, actions: Tensor, agents: Tensor | None = None) -> Tensor:
        """Open-loop rollouts: states (B, D), actions (B, H)|(B, H, A), agents (B,) ascending -> (M, B, H+1, D)."""
        return rollout(lambda s, a: self.step(s, a, agents), self.members, states, actions)


def _unstandardized(encoder: StateEncoder) -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """The encoder's hidden layers and its head, (M, in, out) and (M, 1, out) each, as maps of raw states."""
    scale = torch.ones(encoder.inputs_dim, dtype=torch.float64, device=encoder.state_std.device)
    shift = torch.zeros_like(scale)
    scale[: len(encoder.state_std)] = 1 / encoder.state_std.double()
    shift[: len(encoder.state_std)] = -encoder.state_mean.double() / encoder.state_std.double()

    def fold(weight: Tensor, bias: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Of a layer whose columns from `first` on take the encoder's inputs."""
        own = weight[:, first:].double()
        folded = torch.cat((weight[:, :first], (own * scale[:, None]).to(weight.dtype)), dim=1)
        return folded, (bias.double() + shift @ own[:, None]).to(bias.dtype).view_as(bias)

    hidden: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in encoder.mlp.hidden]  # type: ignore[misc]
    if hidden:
        hidden[0] = fold(*hidden[0], first=0)
    weight, bias = encoder.mlp.head()
    return hidden, fold(weight, bias, first=weight.shape[1] - encoder.inputs_dim)


def _contract(part: Tensor, simulator: Simulator, factors: Tensor) -> Tensor:
    """Fold agents' factors into a part of the head: (M, in, D·R) -> (G, M, out, in).

    The outputs are (action, d) for discrete actions and (d, k) for continuous ones, with k running over the action
    rank.
    """
    part = part.unflatten(-1, simulator.state_encoder.shape) * simulator.delta_rms[:, None]
    if isinstance(simulator.action_encoder, MemberEmbedding):
        actions = simulator.action_encoder.table()
    else:
        rank = simulator.ranks.action
        actions = torch.eye(rank, device=factors.device, dtype=factors.dtype).expand(len(factors), rank, rank)
    # Coefficients are linear in the action factor, so unit vectors give the matrix (M, G, A or R_action, R_state).
    agents, count = factors.shape[1], actions.shape[1]
    coefficients = simulator.factorization.coefficients(
        factors[:, :, None].expand(-1, -1, count, -1).flatten(1, 2),
        actions[:, None].expand(-1, agents, -1, -1).flatten(1, 2),
    ).unflatten(1, (agents, count))
    equation = "mhdr,mgar->gmadh" if simulator.is_discrete else "mhdr,mgar->gmdah"
    return torch.einsum(equation, part, coefficients).flatten(2, 3).contiguous()
