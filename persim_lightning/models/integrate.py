"""Integrates rates of change over durations in base steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# One sub-step of Euler is the map from a state to the next of an evenly spaced table.
_ROUNDING = 1e-5


def integrate(
    rate: Callable[[Tensor], Tensor],
    states: Tensor,
    duration: Tensor | None,
    integrator: str,
    stop: Callable[[Tensor], Tensor],
) -> Tensor:
    """Advance states by sub-steps of at most one base step.

    Parameters
    ----------
    rate : callable, states (..., D) -> change per base step (..., D)
    states : Tensor, shape (..., D)
    duration : Tensor, broadcastable to the shape of states without D, or None
        Base steps; None for one.
    integrator : {'euler', 'rk4'}
    stop : callable, (..., D) -> (..., D)
        Applied after every sub-step, such as :class:`~persim_lightning.models.walls.Walls`.

    Returns
    -------
    Tensor, shape (..., D)
    """
    if duration is None:
        return stop(_substep(rate, states, None, integrator))
    # Sub-steps start on whole base steps, so that states in between do not change what follows.
    for index in range(substeps(duration)):
        span = (duration - index).clamp(0, 1)[..., None]
        states = stop(_substep(rate, states, span, integrator))
    return states


def substeps(duration: Tensor) -> int:
    """Number of sub-steps of the longest duration."""
    return int(torch.ceil(duration.max() - _ROUNDING)) if duration.numel() else 0


def _substep(rate: Callable[[Tensor], Tensor], states: Tensor, span: Tensor | None, integrator: str) -> Tensor:
    """Advance by `span` base steps, one by default."""
    first = rate(states)
    if integrator == "euler":
        return states + (first if span is None else span * first)
    scale: Tensor | float = 1.0 if span is None else span
    second = rate(states + scale / 2 * first)
    third = rate(states + scale / 2 * second)
    fourth = rate(states + scale * third)
    return states + scale / 6 * (first + 2 * (second + third) + fourth)
