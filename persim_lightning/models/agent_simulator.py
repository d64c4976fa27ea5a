"""Simulators of a few agents, contracted for speed.

Arrays have rows last in memory, and every layer writes into a preallocated buffer: for small networks, memory traffic
costs as much as the matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from persim_lightning.models.contraction import Contracted, contract, network_inputs, select_outputs
from persim_lightning.models.encoders import ContinuousActionEncoder
from persim_lightning.models.integrate import integrate
from persim_lightning.models.rollout import rollout
from persim_lightning.models.simulator import Simulator

# In place, since allocating an array costs more than computing the activation.
_gelu_ = torch.ops.aten.gelu_


def personalize(simulator: Simulator, *agents: int) -> AgentSimulator:
    """Contract the simulators of some agents, given by their indices 0 … N-1.

    Raises
    ------
    IndexError
        If an agent is unknown.
    """
    for agent in agents:
        if not 0 <= agent < simulator.num_agents:
            raise IndexError(f"agent index {agent} is outside 0 … {simulator.num_agents - 1}")
    return AgentSimulator(simulator, simulator.agent_encoder.table()[:, list(agents)])


class AgentSimulator(nn.Module):
    """Predicts Δs of G agents with all M members; for inference only.

    Made by :func:`personalize`; does not contain factors of other agents.

    Parameters
    ----------
    simulator : Simulator
    factors : Tensor, shape (M, G, R_agent)
        Factors of the agents.
    """

    def __init__(self, simulator: Simulator, factors: Tensor) -> None:
        super().__init__()
        self.members, self.state_dim, self.num_agents = simulator.members, simulator.state_dim, factors.shape[1]
        self.integrator = simulator.config.integrator
        self.walls, self.angles = simulator.walls, simulator.state_encoder.angles
        encoder = simulator.action_encoder
        self.action_encoder = encoder if isinstance(encoder, ContinuousActionEncoder) else None
        parts = contract(simulator, factors)
        self._depth = len(parts.hidden)
        for index, (weight, bias) in enumerate(parts.hidden):
            self.register_buffer(f"weight{index}", weight)
            self.register_buffer(f"bias{index}", bias)
        self.register_buffer("head_hidden", parts.head_hidden)
        self.register_buffer("head_inputs", parts.head_inputs)
        self.register_buffer("head_bias", parts.head_bias)
        self.register_buffer("center", parts.center)
        self._arrays: list[Tensor] = []

    head_hidden: Tensor
    head_inputs: Tensor
    head_bias: Tensor
    center: Tensor | None

    @property
    def parts(self) -> Contracted:
        """Return the contracted network."""
        return Contracted(self._hidden_layers(), self.head_hidden, self.head_inputs, self.head_bias, self.center)

    def _hidden_layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(getattr(self, f"weight{index}"), getattr(self, f"bias{index}")) for index in range(self._depth)]

    def forward(self, states: Tensor, actions: Tensor, agents: Tensor | None = None) -> Tensor:
        """Predict Δs in raw units.

        Parameters
        ----------
        states : Tensor, shape (M, B, D)
            Fastest with rows last in memory, as :meth:`step` returns them.
        actions : Tensor, shape (B,) int64 or (B, A)
        agents : Tensor, shape (B,), int64, optional
            Index among the G agents of every row, ascending; optional if G = 1.

        Returns
        -------
        Tensor, shape (M, B, D)
        """
        output = self._head(states.mT, agents)
        return select_outputs(output, actions, self.state_dim, self.action_encoder)

    def _head(self, states: Tensor, agents: Tensor | None) -> Tensor:
        """Compute the outputs that actions select or multiply, (M, D, B) -> (M, ·, B)."""
        inputs = network_inputs(states, self.angles, self.center, self.head_bias.dtype)
        *layers, direct, output = self._workspace(states)
        features = inputs
        for (weight, bias), out in zip(self._hidden_layers(), layers, strict=True):
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
            raise ValueError(f"the simulator holds {self.num_agents} agents: give the agent of every row")
        return torch.bincount(agents, minlength=self.num_agents).tolist()

    def _workspace(self, states: Tensor) -> list[Tensor]:
        """Return the buffers of the layers, reused while the number of rows stays the same."""
        rows, inference = states.shape[-1], torch.is_inference_mode_enabled()
        # Tensors that were created in inference mode cannot be written to outside of it.
        like, old = self.head_bias, self._arrays[0] if self._arrays else None
        if (
            old is None
            or (old.shape[-1], old.is_inference()) != (rows, inference)
            or (old.dtype, old.device) != (like.dtype, like.device)
        ):
            widths = [weight.shape[1] for weight, _ in self._hidden_layers()]
            widths += 2 * [self.head_bias.shape[2]]
            self._arrays = [self.head_bias.new_empty(self.members, width, rows) for width in widths]
        return self._arrays

    @torch.no_grad()
    def step(
        self, states: Tensor, actions: Tensor, agents: Tensor | None = None, duration: Tensor | None = None
    ) -> Tensor:
        """Predict states after one base step, or `duration` (B,); other shapes as for :meth:`forward`."""
        return integrate(lambda state: self(state, actions, agents), states, duration, self.integrator, self.walls)

    @torch.no_grad()
    def rollout(self, states: Tensor, actions: Tensor, agents: Tensor | None = None) -> Tensor:
        """Open-loop rollouts: states (B, D), actions (B, H)|(B, H, A), agents (B,) ascending -> (M, B, H+1, D)."""
        return rollout(lambda s, a: self.step(s, a, agents), self.members, states, actions)
