"""Networks of CaDM: dynamics given a context that is encoded from an agent's last transitions.

Context-aware Dynamics Model for Generalization in Model-Based Reinforcement Learning (Lee et al., 2020;
https://arxiv.org/abs/2005.06800). Every ensemble member has a separate context encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persim_lightning.data.windows import Past, Windows
from persim_lightning.models.layers import MemberLinear, MemberMLP
from persim_lightning.models.scaling import Scales
from persim_lightning.models.walls import Walls

_CONTEXT_HIDDEN = (256, 128, 64)
# Initial bounds of log-variances, and the weight of their difference in the loss (PETS; Chua et al., 2018).
_LOG_VARIANCE = (-10.0, 0.5)
_BOUNDS_WEIGHT = 0.01


class Gaussian(NamedTuple):
    """Predicted normalized Δs: mean and log-variance (M, …, D); None as log-variance of deterministic models."""

    mean: Tensor
    log_variance: Tensor | None


class ContextNet(nn.Module):
    """(state, action, context) -> normalized Δs, with swish hidden layers.

    Parameters
    ----------
    members, inputs, context, state_dim : int
    width, layers : int
        Sizes of the hidden layers.
    probabilistic : bool
        Whether to predict the log-variance.
    """

    def __init__(
        self, members: int, inputs: int, context: int, state_dim: int, width: int, layers: int, probabilistic: bool
    ) -> None:
        super().__init__()
        self._dim, self.probabilistic = state_dim, probabilistic
        self.from_inputs = MemberLinear(members, inputs, width)
        self.from_context = MemberLinear(members, context, width)
        self.rest = MemberMLP(members, [*[width] * layers, state_dim * (1 + probabilistic)], F.silu)
        if probabilistic:
            low, high = (torch.full((members, state_dim), bound) for bound in _LOG_VARIANCE)
            self.low, self.high = nn.Parameter(low), nn.Parameter(high)

    def forward(self, inputs: Tensor, context: Tensor) -> Gaussian:
        """Inputs (M, B, F, in) of F steps that share a context, (M, B, C) -> shapes (M, B, F, D)."""
        members, batch, steps, _ = inputs.shape
        first = self.from_inputs(inputs.flatten(1, 2)).view(members, batch, steps, -1)
        hidden = F.silu(first + self.from_context(context)[:, :, None]).flatten(1, 2)
        return self.split(self.rest(hidden).view(members, batch, steps, -1))

    def split(self, outputs: Tensor) -> Gaussian:
        """Split outputs (M, …, out) into mean and bounded log-variance."""
        if not self.probabilistic:
            return Gaussian(outputs, None)
        mean, log_variance = outputs.split(self._dim, dim=-1)
        low, high = (bound.view(len(bound), *[1] * (outputs.ndim - 2), -1) for bound in (self.low, self.high))
        log_variance = high - F.softplus(high - log_variance)
        return Gaussian(mean, low + F.softplus(log_variance - low))

    def bounds_penalty(self) -> Tensor | float:
        """Difference between the bounds of log-variances, by member, (M,)."""
        return _BOUNDS_WEIGHT * (self.high - self.low).sum(1) if self.probabilistic else 0.0


class ContextModel(nn.Module):
    """Context encoder, forward and backward dynamics of M members.

    Parameters
    ----------
    state_dim, action_dim : int
        D and the number of action columns (1 for discrete actions).
    num_actions : int or None
        Number of discrete actions; None for continuous ones.
    members : int
        M.
    past : int
        K, number of transitions that a context is encoded from.
    context_dim, width, layers : int
        Sizes of the context and of the dynamics' hidden layers.
    probabilistic : bool
        Whether dynamics are Gaussians (PE-TS) or points.
    angles : sequence of int
        State coordinates that are unbounded angles; their sines and cosines are further inputs.
    walls : bool
        Whether predictions stop at :class:`~persim_lightning.models.walls.Walls`.
    """

    def __init__(
        self,
        *,
        state_dim: int,
        action_dim: int,
        num_actions: int | None,
        members: int,
        past: int,
        context_dim: int,
        width: int,
        layers: int,
        probabilistic: bool,
        angles: Sequence[int] = (),
        walls: bool = False,
    ) -> None:
        super().__init__()
        self.members, self.state_dim = members, state_dim
        self.scales = Scales(state_dim, action_dim, num_actions, angles)
        inputs = self.scales.states_size + self.scales.actions_size
        pair = state_dim + self.scales.actions_size
        self.encoder = MemberMLP(members, [past * pair, *_CONTEXT_HIDDEN, context_dim], F.relu)
        sizes = (members, inputs, context_dim, state_dim, width, layers, probabilistic)
        self.forward_net, self.backward_net = ContextNet(*sizes), ContextNet(*sizes)
        self.walls = Walls(state_dim, walls)

    def context(self, past: Past) -> Tensor:
        """Encode the contexts of every member: past (M, B, K, …) -> (M, B, C)."""
        delta, action = past.delta / self.scales.delta_rms, self.scales.actions(past.action)
        # Steps before the start of a trajectory must not be encoded as action zero.
        pairs = torch.cat((delta, action), dim=-1) * past.valid[..., None]
        contexts: Tensor = self.encoder(pairs.flatten(-2))
        return contexts

    def loss(self, windows: Windows, backward_weight: float) -> Tensor:
        """Compute the forward and backward loss of all F steps under the first context: windows (M, B, F, …) -> (M,).

        Parameters
        ----------
        windows : Windows
        backward_weight : float
            β of Lee et al., equation 4.
        """
        context = self.context(windows.past)
        action, delta = self.scales.actions(windows.action), windows.delta / self.scales.delta_rms
        valid = windows.valid[..., None]
        total = self.forward_net.bounds_penalty() + backward_weight * self.backward_net.bounds_penalty()
        for net, states, target, weight in (
            (self.forward_net, windows.state, delta, 1.0),
            (self.backward_net, windows.state + windows.delta, -delta, backward_weight),
        ):
            predicted = net(torch.cat((self.scales.states(states), action), dim=-1), context)
            error = torch.where(valid, _loss(predicted, target), 0.0)
            total = total + weight * error.sum((1, 2, 3)) / (valid.sum((1, 2, 3)) * self.state_dim).clamp(min=1)
        return total  # type: ignore[return-value]


def _loss(predicted: Gaussian, target: Tensor) -> Tensor:
    """Squared error, or twice the negative log-likelihood up to a constant."""
    square = (predicted.mean - target).square()
    if predicted.log_variance is None:
        return square
    return square * (-predicted.log_variance).exp() + predicted.log_variance
