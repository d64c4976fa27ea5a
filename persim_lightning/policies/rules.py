"""Rules by which networks choose actions, one for each kind of policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from persim_lightning.policies.networks import Net


class Rule(Protocol):
    """Chooses actions; its fields are networks and numbers, which are all that is stored."""

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """Standardized states (B, D) -> actions, (B,) int64 or (B, A)."""
        ...

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        """Return inputs and outputs of every network; `actions` counts discrete actions or action coordinates."""
        ...


@dataclass(frozen=True)
class HighestValue:
    """Chooses the discrete action with the highest value (CQL)."""

    value: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.value(states).argmax(-1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"value": (state_dim, actions)}


@dataclass(frozen=True)
class HighestLikelyValue:
    """Chooses the discrete action with the highest value among those that the data support (BCQ).

    Attributes
    ----------
    value, behavior : Net
        Values and logits of the actions.
    threshold : float
        Minimum probability of a supported action, as a share of the most likely action's.
    """

    value: Net
    behavior: Net
    threshold: float

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        logits = self.behavior(states)
        # The most likely action is always supported.
        ratio = logits - logits.amax(-1, keepdim=True)
        allowed = (ratio > math.log(self.threshold)) | (ratio == 0)
        return self.value(states).masked_fill(~allowed, -torch.inf).argmax(-1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"value": (state_dim, actions), "behavior": (state_dim, actions)}


@dataclass(frozen=True)
class SquashedMean:
    """Returns the hyperbolic tangent of a network's output (CQL)."""

    actor: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor(states).tanh()

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"actor": (state_dim, actions)}


@dataclass(frozen=True)
class HighestLogit:
    """Chooses the most likely discrete action, by a network with tanh between its layers (MOReL)."""

    actor: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor(states, torch.tanh).argmax(-1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"actor": (state_dim, actions)}


@dataclass(frozen=True)
class ClippedMean:
    """Returns the mean action of a Gaussian, clipped to [-1, 1], by a network with tanh layers (MOReL)."""

    actor: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor(states, torch.tanh).clamp(-1, 1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"actor": (state_dim, actions)}


@dataclass(frozen=True)
class BestOfSamples:
    """Samples actions from a model of the data, perturbs them, and chooses the best (BCQ).

    Attributes
    ----------
    decoder : Net
        Decoder of the variational autoencoder: (s, z) -> a, with twice as many latents as action coordinates.
    perturbation : Net
        (s, a) -> change of a before tanh.
    value : Net
        (s, a) -> value.
    flexibility : float
        Largest change of a coordinate.
    samples : int
    """

    decoder: Net
    perturbation: Net
    value: Net
    flexibility: float
    samples: int

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        repeated = states.repeat_interleave(self.samples, 0)
        latents = 2 * self.decoder.size[1]
        # Clip latents as in training, and draw once per batch, so that actions depend on the generator only.
        noise = torch.randn(len(repeated), latents, generator=generator).clamp(-0.5, 0.5)
        actions = self.decoder(torch.cat((repeated, noise), -1))
        change = self.flexibility * self.perturbation(torch.cat((repeated, actions), -1)).tanh()
        actions = (actions + change).clamp(-1, 1)
        values = self.value(torch.cat((repeated, actions), -1)).view(-1, self.samples)
        return actions.view(len(states), self.samples, -1)[torch.arange(len(states)), values.argmax(-1)]

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        both = state_dim + actions
        return {"decoder": (both + actions, actions), "perturbation": (both, actions), "value": (both, 1)}
