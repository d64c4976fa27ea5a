"""Layers that hold all ensemble members and evaluate them in one batched matrix product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemberLinear(nn.Module):
    """M independent affine maps, one per ensemble member.

    Parameters
    ----------
    members : int
        M.
    in_features, out_features : int
    """

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, out_features))

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, B, in) -> (M, B, out)."""
        return torch.baddbmm(self.bias, inputs, self.weight)


class SkipMLP(nn.Module):
    """An affine map plus an MLP with GELU activations, for every member; the MLP's output layer starts small.

    The affine skip connection matters since most of Δs is affine in s, and long rollouts accumulate the errors of
    hidden layers. GELU fitted better than SiLU or tanh.

    Parameters
    ----------
    members, in_features, out_features : int
    hidden : sequence of int
        Widths of the hidden layers; empty for a purely affine map.
    """

    def __init__(self, members: int, in_features: int, out_features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        self.skip = MemberLinear(members, in_features, out_features)
        self.hidden = nn.ModuleList(
            MemberLinear(members, before, after) for before, after in itertools.pairwise(widths)
        )
        self.output = MemberLinear(members, widths[-1], out_features) if hidden else None

    def features(self, inputs: Tensor) -> Tensor:
        """Compute the last hidden activations, (M, B, in) -> (M, B, hidden[-1])."""
        for layer in self.hidden:
            inputs = F.gelu(layer(inputs))
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, B, in) -> (M, B, out)."""
        affine: Tensor = self.skip(inputs)
        if self.output is None:
            return affine
        return affine + self.output(self.features(inputs))

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the last layer as a map of [features, inputs]: weight (M, hidden[-1] + in, out), bias (M, 1, out)."""
        if self.output is None:
            return self.skip.weight, self.skip.bias
        return torch.cat((self.output.weight, self.skip.weight), dim=1), self.output.bias + self.skip.bias

    def head_inputs(self, inputs: Tensor) -> Tensor:
        """Compute the inputs of :meth:`head`, [features, inputs]: (M, B, in) -> (M, B, hidden[-1] + in)."""
        return inputs if self.output is None else torch.cat((self.features(inputs), inputs), dim=-1)


class MemberMLP(nn.Module):
    """A multilayer perceptron for every member.

    Parameters
    ----------
    members : int
        M.
    widths : sequence of int
        Widths of inputs, hidden layers and outputs.
    activation : callable
        Activation between layers.
    """

    def __init__(self, members: int, widths: Sequence[int], activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemberLinear(members, *pair) for pair in itertools.pairwise(widths))
        self._activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, B, in) -> (M, B, out)."""
        *hidden, output = self.layers
        for layer in hidden:
            inputs = self._activation(layer(inputs))
        outputs: Tensor = output(inputs)
        return outputs
