"""Rollouts and planning with CaDM's contexts.

Arrays have rows last in memory, as planners pass them. The contribution of a context to the first layer is computed
once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.data.windows import Past
from persim_lightning.methods.cadm.context_model import ContextModel
from persim_lightning.models.rollout import rollout
from persim_lightning.planning.shared_noise import SharedNoise

_silu_ = torch.ops.aten.silu_


class ContextDynamics:
    """Predicts next states under N contexts for P particles at once.

    Every particle follows one ensemble member and that member's context (TS∞ of Chua et al., 2018).

    Parameters
    ----------
    model : ContextModel
    contexts : Tensor, shape (M, N, C)
        Output of :meth:`ContextModel.context`.
    particles : int
        Particles of each member, P = M · particles in total. Deterministic models need one.
    noise : SharedNoise, optional
        Noise of the particles, shared by all rows so that plans are compared under the same noise. None predicts
        means.
    """

    @torch.no_grad()
    def __init__(
        self, model: ContextModel, contexts: Tensor, particles: int = 1, noise: SharedNoise | None = None
    ) -> None:
        self._model, self._particles, self._noise = model, particles, noise
        self.members = model.members * particles
        net = model.forward_net
        bias = net.from_context(contexts) + net.from_inputs.bias
        weight = net.from_inputs.weight
        sizes = (model.scales.states_size, model.scales.actions_size)
        self._from_state, from_action = weight.split(sizes, dim=1)
        self._from_state = self._from_state.mT.contiguous()
        if model.scales.num_actions is None:
            self._from_action: Tensor | None = from_action.mT.contiguous()
            self._bias = bias.mT.contiguous()
        else:
            # (M, width, N · actions): the contribution of context and action to the first layer.
            self._from_action = None
            self._bias = (bias[:, :, None] + from_action[:, None]).flatten(1, 2).mT.contiguous()
        self._layers = [
            (layer.weight.mT.contiguous(), layer.bias.mT.contiguous())  # type: ignore[operator, union-attr]
            for layer in net.rest.layers
        ]

    @torch.no_grad()
    def step(self, states: Tensor, actions: Tensor, agents: Tensor) -> Tensor:
        """States (P, B, D), actions (B,)|(B, A), the rows' contexts (B,), 0 … N-1 -> next states (P, B, D)."""
        model, rows = self._model, states.shape[1]
        # (P, D, B) -> (M, D, particles · B)
        features = states.mT.reshape(model.members, self._particles, model.state_dim, rows)
        features = features.transpose(1, 2).reshape(model.members, model.state_dim, -1)
        features = model.scales.states(features.mT).mT
        if self._from_action is None:
            first = self._bias[:, :, agents * (model.scales.num_actions or 1) + actions]
        else:
            encoded = model.scales.actions(actions).T.expand(model.members, -1, -1)
            first = torch.baddbmm(self._bias[:, :, agents], self._from_action, encoded)
        hidden = _silu_(torch.baddbmm(first.repeat(1, 1, self._particles), self._from_state, features))
        *layers, (weight, bias) = self._layers
        for inner, shift in layers:
            hidden = _silu_(torch.baddbmm(shift, inner, hidden))
        predicted = model.forward_net.split(torch.baddbmm(bias, weight, hidden).mT)
        # (M, particles · B, D) -> (P, B, D), rows last in memory
        delta, log_variance = (
            None
            if part is None
            else part.mT.unflatten(-1, (self._particles, rows)).transpose(1, 2).reshape(self.members, -1, rows)
            for part in predicted
        )
        assert delta is not None
        if log_variance is not None and self._noise is not None:
            noise = self._noise.next((self.members, model.state_dim, 1), delta.device)
            delta = delta + (0.5 * log_variance).exp() * noise
        next_state: Tensor = model.walls(states + (delta * model.scales.delta_rms[:, None]).mT)
        return next_state

    def rollout(self, states: Tensor, actions: Tensor) -> Tensor:
        """Open-loop rollouts, one row per context: states (N, D), actions (N, H)|(N, H, A) -> (P, N, H+1, D)."""
        own = torch.arange(len(states), device=states.device)
        return rollout(lambda s, a: self.step(s, a, own), self.members, states, actions)


class RecentPast:
    """The last K transitions of B running episodes.

    Parameters
    ----------
    batch, past, state_dim : int
        B, K and D.
    action : Tensor
        An example, for shape and dtype.
    """

    def __init__(self, batch: int, past: int, state_dim: int, action: Tensor) -> None:
        self.past = Past(
            torch.zeros(batch, past, state_dim),
            action.new_zeros(batch, past, *action.shape),
            torch.zeros(batch, past, dtype=torch.bool),
        )

    def push(self, delta: Tensor, action: Tensor) -> None:
        """Append a transition to every episode: Δs (B, D), actions (B,)|(B, A)."""
        new = (delta, action, torch.ones(len(delta), dtype=torch.bool))
        self.past = Past(
            *(
                torch.cat((old[:, 1:], value.to(old.dtype)[:, None]), dim=1)
                for old, value in zip(self.past, new, strict=True)
            )
        )


class ContextPolicy:
    """Applies a policy that plans under contexts, and records the transitions that contexts are encoded from.

    Parameters
    ----------
    policy : Policy
        Policy that reads `recent` when it plans.
    recent : RecentPast
    """

    def __init__(self, policy: Policy, recent: RecentPast) -> None:
        self._policy, self._recent = policy, recent
        self._before: tuple[Tensor, Tensor] | None = None

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) of the next step of the same episodes -> actions (B,)|(B, A)."""
        if self._before is not None:
            before, played = self._before
            self._recent.push(states - before, played)
        actions = self._policy(states, generator)
        self._before = (states, actions)
        return actions
