"""Open-loop rollouts of an ensemble."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def rollout(step: Callable[[Tensor, Tensor], Tensor], members: int, states: Tensor, actions: Tensor) -> Tensor:
    """Apply `step` along sequences of actions, separately for each member.

    Parameters
    ----------
    step : callable, (states (M, B, D), actions (B,)|(B, A)) -> next states (M, B, D)
    members : int
        M.
    states : Tensor, shape (B, D)
        Initial states.
    actions : Tensor, shape (B, H) or (B, H, A)

    Returns
    -------
    Tensor, shape (M, B, H+1, D)
        Entry 0 along H+1 is the initial state.
    """
    horizon = actions.shape[1]
    trajectory = states.new_empty(members, len(states), horizon + 1, states.shape[-1])
    trajectory[:, :, 0] = states
    for h in range(horizon):
        trajectory[:, :, h + 1] = step(trajectory[:, :, h], actions[:, h])
    return trajectory
