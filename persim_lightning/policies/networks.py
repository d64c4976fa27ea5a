"""Multilayer perceptrons as plain tensors, without random initialization and without pickle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        """Return the numbers of inputs and outputs.

        Raises
        ------
        ValueError
            If the sizes of the layers do not match.
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
    """Copy the linear layers of a library's network."""
    return Net(tuple(Layer(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers))
