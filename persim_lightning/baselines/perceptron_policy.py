"""A small deterministic policy as plain tensors, saved without pickle and used without the library that trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.files import atomic_write, read_json, write_json

_WEIGHTS, _DESCRIPTION = "policy.safetensors", "policy.json"


class PerceptronPolicy:
    """Linear layers of standardised states with tanh between them; the best of the actions, or the mean action.

    Parameters
    ----------
    tensors : dict of str to Tensor
        `mean` and `std` of states, shape (D,), and `0.weight` (out, in), `0.bias` (out,), `1.weight`, … in order.
    discrete : bool
        Whether the outputs are logits of discrete actions, of which the highest is taken; otherwise they are the
        action, clipped to [-1, 1].
    facts : dict, optional
        How it was learned, for readers of the saved JSON.

    Raises
    ------
    KeyError, ValueError
        If tensors are missing, or do not fit together.
    """

    def __init__(self, tensors: dict[str, Tensor], discrete: bool, facts: dict[str, Any] | None = None) -> None:
        self._tensors, self._discrete, self._facts = tensors, discrete, facts or {}
        self._mean, self._std = tensors["mean"], tensors["std"]
        count = sum(name.endswith(".weight") for name in tensors)
        self._layers = [(tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]) for layer in range(count)]
        if not self._layers:
            raise ValueError("no layer")
        width = len(self._mean)
        for weight, bias in self._layers:
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                raise ValueError(f"a layer of shape {tuple(weight.shape)} cannot follow {width} values")
            width = len(weight)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and outputs."""
        return len(self._mean), len(self._layers[-1][0])

    @torch.no_grad()
    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) float64 in [-1, 1]; the generator is not used."""
        values = (states.float() - self._mean) / self._std
        *hidden, output = self._layers
        for layer in hidden:
            values = F.linear(values, *layer).tanh()
        values = F.linear(values, *output)
        return values.argmax(-1) if self._discrete else values.clamp(-1, 1).double()

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json`, each whole or not at all."""
        with atomic_write(folder / _WEIGHTS) as temporary:
            save_file({name: value.contiguous() for name, value in self._tensors.items()}, temporary)
        write_json({"discrete": self._discrete, **self._facts}, folder / _DESCRIPTION)

    @classmethod
    def load(cls, folder: Path, environment: Environment) -> PerceptronPolicy:
        """Read what :meth:`save` wrote.

        Raises
        ------
        PersimError
            If it is missing or damaged, or belongs to another environment.
        """
        weights, description = folder / _WEIGHTS, folder / _DESCRIPTION
        for path in (weights, description):
            if not path.is_file():
                raise PersimError(f"{path}: no such file, so there is no policy in {folder}")
        try:
            facts = dict(read_json(description))
            policy = cls(load_file(weights), facts.pop("discrete"), facts)
            outputs = environment.num_actions or len(environment.action_names)
            wanted = len(environment.state_names), outputs
            if policy.shape != wanted or policy._discrete != (environment.num_actions is not None):
                raise ValueError(f"inputs and outputs {policy.shape} do not fit {environment.name}, {wanted}")
        except ConfigurationError:
            raise
        except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            problem = str(error).splitlines()[0]
            raise PersimError(f"{weights} and .json: not a readable policy ({problem})") from error
        return policy
