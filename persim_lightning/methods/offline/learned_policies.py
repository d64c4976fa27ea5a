"""Policies of offline reinforcement learning as plain tensors, and the files that hold them.

They act without the library that trained them, and loading one executes nothing.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from persim_lightning.envs import Environment
from persim_lightning.errors import SimulatorFileError
from persim_lightning.support.files import atomic_write, write_json

# Numbers that rules hold.
_NUMBERS: dict[str, type[float] | type[int]] = {"threshold": float, "flexibility": float, "samples": int}
_WEIGHTS, _SETTINGS = "policy.safetensors", "policy.json"


class Layer(NamedTuple):
    """A linear layer: weight (out, in), bias (out,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Net:
    """Linear layers with activations between them, (B, in) -> (B, out)."""

    layers: tuple[Layer, ...]

    def __call__(self, inputs: Tensor, activation: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
        *hidden, output = self.layers
        for layer in hidden:
            inputs = activation(F.linear(inputs, *layer))
        return F.linear(inputs, *output)

    @property
    def size(self) -> tuple[int, int]:
        """Numbers of inputs and outputs.

        Raises
        ------
        ValueError
            If the layers do not fit together.
        """
        for before, after in itertools.pairwise(self.layers):
            if after.weight.shape[1] != len(before.bias):
                raise ValueError(
                    f"a layer of {len(before.bias)} outputs precedes one of {after.weight.shape[1]} inputs"
                )
        for weight, bias in self.layers:
            if weight.ndim != 2 or bias.shape != weight.shape[:1]:
                raise ValueError(f"weights {tuple(weight.shape)} with biases {tuple(bias.shape)}")
        return self.layers[0].weight.shape[1], len(self.layers[-1].bias)


def copy_layers(layers: Sequence[nn.Linear]) -> Net:
    """Linear layers of a library's network, taken out of it."""
    return Net(tuple(Layer(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers))


class Rule(Protocol):
    """How networks choose actions. Fields are networks and numbers, and nothing else is stored."""

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """Standardized states (B, D) -> actions, (B,) int64 or (B, A)."""
        ...

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of every network; `actions` counts discrete actions, or coordinates of continuous ones."""
        ...


@dataclass(frozen=True)
class HighestValue:
    """The discrete action of the highest value (CQL)."""

    value: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.value(states).argmax(-1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"value": (state_dim, actions)}


@dataclass(frozen=True)
class HighestLikelyValue:
    """The discrete action of the highest value among those that the data support (BCQ).

    Attributes
    ----------
    value, behavior : Net
        Values and logits of the actions.
    threshold : float
        An action is supported if it is more than this many times as likely as the likeliest.
    """

    value: Net
    behavior: Net
    threshold: float

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        logits = self.behavior(states)
        # The likeliest action is allowed whatever the threshold, so that a row always has one.
        ratio = logits - logits.amax(-1, keepdim=True)
        allowed = (ratio > math.log(self.threshold)) | (ratio == 0)
        return self.value(states).masked_fill(~allowed, -torch.inf).argmax(-1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"value": (state_dim, actions), "behavior": (state_dim, actions)}


@dataclass(frozen=True)
class SquashedMean:
    """The hyperbolic tangent of a network's output (CQL)."""

    actor: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor(states).tanh()

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"actor": (state_dim, actions)}


@dataclass(frozen=True)
class HighestLogit:
    """The likeliest discrete action of a network with tanh between its layers (MOReL)."""

    actor: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor(states, torch.tanh).argmax(-1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"actor": (state_dim, actions)}


@dataclass(frozen=True)
class ClippedMean:
    """The mean action of a Gaussian, clipped to [-1, 1]; a network with tanh between its layers (MOReL)."""

    actor: Net

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor(states, torch.tanh).clamp(-1, 1)

    @staticmethod
    def sizes(state_dim: int, actions: int) -> dict[str, tuple[int, int]]:
        return {"actor": (state_dim, actions)}


@dataclass(frozen=True)
class BestOfSamples:
    """Samples actions as the data's agents might have chosen them, perturbs them, takes the best (BCQ).

    Attributes
    ----------
    decoder : Net
        Of the variational autoencoder: (s, z) -> a, with twice as many latents z as actions have coordinates.
    perturbation : Net
        (s, a) -> the change of a, before tanh.
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
        # Latents are clipped as in training; one draw for a batch, so that a policy is a function of the generator.
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


@dataclass(frozen=True)
class LearnedPolicy:
    """A rule, and the scale of the states that it knows.

    Attributes
    ----------
    rule : Rule
    mean, std : Tensor, shape (D,), float32
        Of recorded states.
    facts : dict
        How it was learned, for readers of the JSON.
    """

    rule: Rule
    mean: Tensor
    std: Tensor
    facts: dict[str, float] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) float64 in [-1, 1]; all chance comes from the generator."""
        # Subtracted in the states' own precision: float32 loses the digits of a state far from zero.
        actions = self.rule(((states - self.mean) / self.std).float(), generator)
        return actions.double() if actions.is_floating_point() else actions

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json`, each whole or not at all."""
        weights, numbers = {"mean": self.mean, "std": self.std}, {}
        for name, value in vars(self.rule).items():
            if isinstance(value, Net):
                for index, layer in enumerate(value.layers):
                    weights |= {f"{name}.{index}.{part}": tensor for part, tensor in layer._asdict().items()}
            else:
                numbers[name] = value
        with atomic_write(folder / _WEIGHTS) as temporary:
            save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
        write_json({"rule": type(self.rule).__name__, **numbers, "facts": self.facts}, folder / _SETTINGS)


def load_learned_policy(folder: Path, rule: type[Rule], environment: Environment) -> LearnedPolicy:
    """Read what :meth:`LearnedPolicy.save` wrote.

    Parameters
    ----------
    folder : Path
    rule : type
        The rule that the policy must have.
    environment : Environment
        That the policy must fit.

    Raises
    ------
    SimulatorFileError
        If the files are missing, damaged, or hold another policy.
    """
    for path in (folder / _WEIGHTS, folder / _SETTINGS):
        if not path.is_file():
            raise SimulatorFileError(f"{path}: no such file, so there is no policy")
    try:
        weights = load((folder / _WEIGHTS).read_bytes())
        settings = json.loads((folder / _SETTINGS).read_text())
        if settings.pop("rule") != rule.__name__:
            raise ValueError(f"its policy is not of the kind {rule.__name__}")
        facts = dict(settings.pop("facts"))
        state_dim = len(environment.state_names)
        sizes = rule.sizes(state_dim, environment.num_actions or len(environment.action_names))
        nets = {name: _read_net(weights, name, size) for name, size in sizes.items()}
        chosen = [part.name for part in fields(rule) if part.name not in nets]  # type: ignore[arg-type]
        numbers = {name: _NUMBERS[name](settings.pop(name)) for name in chosen}
        if not all(number > 0 for number in numbers.values()):
            raise ValueError(f"settings must be positive: {numbers}")
        if settings:
            raise ValueError(f"unknown settings {', '.join(settings)}")
        mean, std = weights["mean"], weights["std"]
        if mean.shape != (state_dim,) or std.shape != (state_dim,):
            raise ValueError(f"scales of {len(mean)} state columns, but {environment.name} has {state_dim}")
        return LearnedPolicy(rule(**nets, **numbers), mean, std, facts)
    except (OSError, AttributeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SimulatorFileError(
            f"{folder / _WEIGHTS} and {_SETTINGS}: not a readable policy for {environment.name} "
            f"({type(error).__name__}: {error})"
        ) from error


def _read_net(weights: dict[str, Tensor], name: str, size: Sequence[int]) -> Net:
    count = len([key for key in weights if key.startswith(f"{name}.") and key.endswith(".weight")])
    net = Net(
        tuple(Layer(weights[f"{name}.{index}.weight"], weights[f"{name}.{index}.bias"]) for index in range(count))
    )
    if not count or net.size != size:
        raise ValueError(f"network '{name}' should have {size[0]} inputs and {size[1]} outputs")
    return net
