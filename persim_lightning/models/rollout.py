"""Open-loop rollouts of an ensemble."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def rollout(
    step: Callable[..., Tensor],
    members: int,
    states: Tensor,
    actions: Tensor,
    duration: Tensor | None = None,
) -> Tensor:
    """Apply `step` along sequences of actions, separately for each member.

    Parameters
    ----------
    step : callable, (states (M, B, D), actions (B,)|(B, A)) -> next states (M, B, D)
        Its third argument is the duration (B,), if durations are given.
    members : int
        M.
    states : Tensor, shape (B, D)
        Initial states.
    actions : Tensor, shape (B, H) or (B, H, A)
    duration : Tensor, shape (B, H), optional
        Base steps from each state to the next; 1 by default.

    Returns
    -------
    Tensor, shape (M, B, H+1, D)
        Entry 0 along H+1 is the initial state.
    """
    horizon = actions.shape[1]
    trajectory = states.new_empty(members, len(states), horizon + 1, states.shape[-1])
    trajectory[:, :, 0] = states
    for h in range(horizon):
        span = () if duration is None else (duration[:, h],)
        trajectory[:, :, h + 1] = step(trajectory[:, :, h], actions[:, h], *span)
    return trajectory
