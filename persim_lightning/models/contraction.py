"""Contracts agent and action factors into the state encoder's last layer, for CP and Tucker.

The contraction is exact. With discrete actions the state network's output shrinks from D·R to D numbers per action;
standardizing the state is folded into the first layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.models.encoders import ContinuousActionEncoder, MemberEmbedding, StateEncoder
from persim_lightning.models.simulator import Simulator

# Spreads from zero beyond which states are centered before they are multiplied.
_FAR = 100.0


class Contracted(NamedTuple):
    """Simulators of G agents as a network on raw states, with features before rows.

    Attributes
    ----------
    hidden : list of (Tensor, Tensor)
        Weights (M, out, in) and biases (M, out, 1) of the hidden layers.
    head_hidden, head_inputs : Tensor, shapes (G, M, K, hidden) and (G, M, K, inputs)
        Weights of the last layer for the last hidden features and for the encoder's inputs. The K outputs are
        (action, d) pairs for discrete actions, and (d, coordinate of the action factor) pairs for continuous ones.
    head_bias : Tensor, shape (G, M, K, 1)
    center : Tensor, shape (inputs, 1), float64, or None
        Subtracted from the inputs in double precision, where values are large beside their spread: single precision
        would round them.
    """

    hidden: list[tuple[Tensor, Tensor]]
    head_hidden: Tensor
    head_inputs: Tensor
    head_bias: Tensor
    center: Tensor | None


@torch.no_grad()
def contract(simulator: Simulator, factors: Tensor) -> Contracted:
    """Contract the factors of some agents.

    Parameters
    ----------
    simulator : Simulator
    factors : Tensor, shape (M, G, R_agent)
    """
    center = _center(simulator.state_encoder)
    layers, head = _on_raw_states(simulator.state_encoder, center)
    weight, bias = (_fold_factors(part, simulator, factors) for part in head)
    hidden = weight.shape[-1] - simulator.state_encoder.inputs_dim
    return Contracted(
        hidden=[(weight.mT.contiguous(), bias.mT.contiguous()) for weight, bias in layers],
        head_hidden=weight[..., :hidden].contiguous(),
        head_inputs=weight[..., hidden:].contiguous(),
        head_bias=bias,
        center=None if center is None else center[:, None],
    )


def network_inputs(states: Tensor, angles: list[int], center: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Append sines and cosines of angles to states, and center them: (M, D, B) -> (M, inputs, B)."""
    inputs = states
    if angles:
        selected = states[:, angles]
        inputs = torch.cat((states, selected.sin(), selected.cos()), dim=1)
    return (inputs if center is None else inputs - center).to(dtype)


def select_outputs(output: Tensor, actions: Tensor, state_dim: int, encoder: ContinuousActionEncoder | None) -> Tensor:
    """Compute Δs from the contracted network's output.

    Parameters
    ----------
    output : Tensor, shape (M, K, B)
    actions : Tensor, shape (B,) int64 or (B, A)
    state_dim : int
    encoder : ContinuousActionEncoder or None
        None for discrete actions, whose outputs are selected.

    Returns
    -------
    Tensor, shape (M, B, D)
    """
    members, _, rows = output.shape
    if encoder is None:
        table = output.view(members, -1, state_dim, rows)
        index = actions.expand(members, 1, state_dim, rows)
        return table.gather(1, index).squeeze(1).mT
    action = encoder(actions.expand(members, *actions.shape))
    return (output.view(members, state_dim, -1, rows) * action.mT[:, None]).sum(2).mT


def _center(encoder: StateEncoder) -> Tensor | None:
    """Means of inputs that are far from zero beside their spread, shape (inputs,), float64; None if there are none."""
    mean, std = encoder.state_mean.double(), encoder.state_std.double()
    far = mean.abs() > _FAR * std
    if not bool(far.any()):
        return None
    return torch.cat((torch.where(far, mean, 0.0), mean.new_zeros(encoder.inputs_dim - len(mean))))


def _on_raw_states(
    encoder: StateEncoder, center: Tensor | None
) -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """Express the encoder's hidden layers and head, (M, in, out) and (M, 1, out) each, as maps of raw states.

    The maps take states minus `center` (inputs,), if there is one.
    """
    scale = torch.ones(encoder.inputs_dim, dtype=torch.float64, device=encoder.state_std.device)
    shift = torch.zeros_like(scale)
    scale[: len(encoder.state_std)] = 1 / encoder.state_std.double()
    mean = encoder.state_mean.double()
    if center is not None:
        mean = mean - center[: len(mean)]
    shift[: len(encoder.state_std)] = -mean / encoder.state_std.double()

    def fold(weight: Tensor, bias: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Fold the scaling into a layer whose columns from `first` on take the encoder's inputs."""
        columns = weight[:, first:].double()
        folded = torch.cat((weight[:, :first], (columns * scale[:, None]).to(weight.dtype)), dim=1)
        return folded, (bias.double() + shift @ columns[:, None]).to(bias.dtype).view_as(bias)

    hidden: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in encoder.mlp.hidden]  # type: ignore[misc]
    if hidden:
        hidden[0] = fold(*hidden[0], first=0)
    weight, bias = encoder.mlp.head()
    return hidden, fold(weight, bias, first=weight.shape[1] - encoder.inputs_dim)


def _fold_factors(part: Tensor, simulator: Simulator, factors: Tensor) -> Tensor:
    """Fold agents' factors, and every discrete action's, into a part of the head: (M, in, D·R) -> (G, M, K, in)."""
    part = part.unflatten(-1, simulator.state_encoder.shape) * simulator.delta_rms[:, None]
    if isinstance(simulator.action_encoder, MemberEmbedding):
        actions = simulator.action_encoder.table()
    else:
        rank = simulator.config.ranks.action
        actions = torch.eye(rank, device=factors.device, dtype=factors.dtype).expand(len(factors), rank, rank)
    # Coefficients are linear in the action factor, so unit vectors give their matrix (M, G, A or R_action, R_state).
    agents, count = factors.shape[1], actions.shape[1]
    coefficients = simulator.factorization.coefficients(
        factors[:, :, None].expand(-1, -1, count, -1).flatten(1, 2),
        actions[:, None].expand(-1, agents, -1, -1).flatten(1, 2),
    ).unflatten(1, (agents, count))
    equation = "mhdr,mgar->gmadh" if simulator.config.is_discrete else "mhdr,mgar->gmdah"
    return torch.einsum(equation, part, coefficients).flatten(2, 3).contiguous()
