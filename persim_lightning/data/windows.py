"""Windows of trajectories: the last transitions before a step, and the transitions that follow it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories


class Past(NamedTuple):
    """The last K transitions before a step; those before the start of the trajectory are zero and not valid.

    Attributes
    ----------
    delta : Tensor, shape (..., K, D)
    action : Tensor, shape (..., K) int64 or (..., K, A)
    valid : Tensor, shape (..., K), bool
    """

    delta: Tensor
    action: Tensor
    valid: Tensor


class Windows(NamedTuple):
    """Transitions of F consecutive steps, and the K transitions before them.

    Attributes
    ----------
    past_delta, past_action, past_valid
        As in :class:`Past`.
    state : Tensor, shape (..., F, D)
    action : Tensor, shape (..., F) int64 or (..., F, A)
    delta : Tensor, shape (..., F, D)
    valid : Tensor, shape (..., F), bool
        Whether to learn from a transition: it exists, and its row was selected for learning.
    """

    past_delta: Tensor
    past_action: Tensor
    past_valid: Tensor
    state: Tensor
    action: Tensor
    delta: Tensor
    valid: Tensor

    @property
    def past(self) -> Past:
        return Past(self.past_delta, self.past_action, self.past_valid)


class WindowGather:
    """Builds batches of windows: each row gives the window whose first transition starts in it.

    Parameters
    ----------
    trajectories : Trajectories
    rows : Tensor, shape (T,), int64
        Rows that start a transition to learn from.
    past, future : int
        K and F.
    """

    def __init__(self, trajectories: Trajectories, rows: Tensor, past: int, future: int) -> None:
        self._trajectories, self.rows_each = trajectories, past + future
        device = trajectories.state.device
        self._before = torch.arange(-past, 0, device=device)
        self._after = torch.arange(future, device=device)
        self._first = torch.repeat_interleave(trajectories.offsets[:-1], trajectories.lengths)
        self._last = torch.repeat_interleave(trajectories.offsets[1:] - 1, trajectories.lengths)
        self._selected = torch.zeros(len(trajectories.state), dtype=torch.bool, device=device)
        self._selected[rows] = True

    def past(self, rows: Tensor) -> Past:
        """The K transitions before each row; `rows` is an index of any shape (...)."""
        index = rows[..., None] + self._before
        valid = index >= self._first[rows][..., None]
        index = torch.where(valid, index, rows[..., None])
        action = self._trajectories.action[index]
        shaped = valid.view(*valid.shape, *[1] * (action.ndim - valid.ndim))
        return Past(self._trajectories.delta[index] * valid[..., None], action * shaped, valid)

    def __call__(self, rows: Tensor) -> Windows:
        """Windows that start in `rows`, an index of any shape (...)."""
        index = rows[..., None] + self._after
        inside = index < self._last[rows][..., None]
        index = torch.where(inside, index, rows[..., None])
        data = self._trajectories
        valid = inside & self._selected[index]
        return Windows(*self.past(rows), data.state[index], data.action[index], data.delta[index], valid)
