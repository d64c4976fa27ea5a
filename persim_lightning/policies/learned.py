"""Trained policies as plain tensors, and the files that hold them.

They need no library of reinforcement learning, and loading one executes no code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from persim_lightning.envs import Environment
from persim_lightning.errors import SimulatorFileError
from persim_lightning.policies.networks import Layer, Net
from persim_lightning.policies.rules import Rule
from persim_lightning.support.files import atomic_write, write_json

# Numeric fields of rules.
_NUMBERS: dict[str, type[float] | type[int]] = {"threshold": float, "flexibility": float, "samples": int}
_WEIGHTS, _SETTINGS = "policy.safetensors", "policy.json"


@dataclass(frozen=True)
class LearnedPolicy:
    """A rule on standardized states.

    Attributes
    ----------
    rule : Rule
    mean, std : Tensor, shape (D,), float32
        Mean and standard deviation of recorded states.
    facts : dict
        Settings of the training, ready for JSON.
    """

    rule: Rule
    mean: Tensor
    std: Tensor
    facts: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) float64 in [-1, 1]; noise comes from the generator only."""
        # Subtract before converting to float32, which loses digits of states far from zero.
        actions = self.rule(((states - self.mean) / self.std).float(), generator)
        return actions.double() if actions.is_floating_point() else actions

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json` atomically."""
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


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the settings of training from the JSON of a saved policy.

    Raises
    ------
    SimulatorFileError
        If the file is missing or damaged.
    """
    return dict(_read_settings(folder)["facts"])


def _read_settings(folder: Path) -> dict[str, Any]:
    """Read the JSON of a saved policy, and check that it has `facts`."""
    path = folder / _SETTINGS
    if not path.is_file():
        raise SimulatorFileError(f"{path}: no such file")
    try:
        settings = json.loads(path.read_text())
        return {**settings, "facts": dict(settings["facts"])}
    except (ValueError, KeyError, TypeError) as error:
        raise SimulatorFileError(f"{path}: not a readable policy ({type(error).__name__}: {error})") from error


def load_learned_policy(folder: Path, rule: type[Rule], environment: Environment) -> LearnedPolicy:
    """Read a policy that :meth:`LearnedPolicy.save` wrote.

    Parameters
    ----------
    folder : Path
    rule : type
        Required type of the policy's rule.
    environment : Environment
        Environment whose states and actions the policy must match.

    Raises
    ------
    SimulatorFileError
        If the files are missing or damaged, or hold another kind of policy.
    """
    settings = _read_settings(folder)
    if not (folder / _WEIGHTS).is_file():
        raise SimulatorFileError(f"{folder / _WEIGHTS}: no such file")
    try:
        weights = load((folder / _WEIGHTS).read_bytes())
        if settings.pop("rule") != rule.__name__:
            raise ValueError(f"its policy is not of the kind {rule.__name__}")
        facts = settings.pop("facts")
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
