"""Chains: stretches of a trajectory from one known state to the next, over rows that are incomplete.

In a complete table every transition is a chain of one row. Where coordinates are missing, the simulator carries its
prediction of them through the incomplete rows, and observed coordinates replace predicted ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persim_lightning.data.batches import PART_ROWS
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.types import Chains, Transitions, WallContacts

# A chain ends after so many rows, even if no row is complete.
_MAX_ROWS = 32


def chain_rows(trajectories: Trajectories, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Divide transitions into chains.

    Parameters
    ----------
    trajectories : Trajectories
    rows : Tensor, shape (T,), int64
        Rows that start a transition, ascending and without gaps within a trajectory, such as the heads of
        :meth:`~persim_lightning.data.trajectories.Trajectories.split_rows`.

    Returns
    -------
    starts, lengths : Tensor, shape (C,), int64
        Rows in which chains start, and their numbers of steps. Chains in which nothing is observed are left out, and so
        are the rows of a trajectory before its coordinates are known.
    """
    observed = trajectories.observed_mask().numpy()
    offsets = trajectories.offsets.numpy()
    complete = np.append(np.where(observed.all(1), np.arange(len(observed)), len(observed)), len(observed))
    next_complete = np.minimum.accumulate(complete[::-1])[::-1]
    # Rows up to each one in which something is observed.
    seen = np.r_[0, observed.any(1).cumsum()]
    wanted = np.zeros(len(observed), dtype=bool)
    wanted[rows.numpy()] = True
    starts: list[int] = []
    lengths: list[int] = []
    for begin, after in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        inside = np.flatnonzero(wanted[begin:after])
        if not len(inside):
            continue
        stop = begin + int(inside[-1]) + 1
        start = max(begin + int(inside[0]), _first_known(observed[begin:after]) + begin)
        while start < stop:
            end = min(int(next_complete[start + 1]), stop, start + _MAX_ROWS)
            if seen[end + 1] > seen[start + 1]:
                starts.append(start)
                lengths.append(end - start)
            start = end
    return torch.tensor(starts, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64)


def _first_known(observed: NDArray[np.bool_]) -> int:
    """First complete row of a trajectory, or the first from which every coordinate that is ever seen is known.

    The latter if none of its first rows, as many as a chain has at most, is complete.
    """
    complete = np.flatnonzero(observed.sum(1)[:_MAX_ROWS] == observed.shape[1])
    if len(complete):
        return int(complete[0])
    seen = observed.any(0)
    return int(observed[:, seen].argmax(0).max()) if seen.any() else 0


def sample_batches(
    trajectories: Trajectories, rows: Tensor, walls: WallContacts | None
) -> Iterator[Transitions | Chains]:
    """Yield the transitions that start in `rows`, or the chains of them, in parts for closed-form work.

    Parameters
    ----------
    trajectories : Trajectories
    rows : Tensor, shape (T,), int64
        As for :func:`chain_rows`.
    walls : WallContacts, optional
        Walls of the simulator; transitions that end on them are left out.
    """
    if trajectories.is_regular:
        row_agent = trajectories.row_agent()
        for part in trajectories.free_rows(rows, walls).split(PART_ROWS):
            yield trajectories.transitions(part, row_agent)
        return
    starts, lengths = chain_rows(trajectories, rows)
    if not len(starts):
        return
    gather = ChainGather(trajectories, starts, lengths, walls)
    for part in starts.split(max(1, PART_ROWS // gather.rows_each)):
        yield gather(part)


def rollout_chains(trajectories: Trajectories, rows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Cut overlapping chains for predictions over several rows in open loop: one from every complete row.

    Parameters
    ----------
    trajectories : Trajectories
    rows : Tensor, shape (T,), int64
        As for :func:`chain_rows`.
    steps : int
        Rows of a chain; fewer where `rows` end.

    Returns
    -------
    starts, lengths : Tensor, shape (C,), int64
    """
    wanted = torch.zeros(len(trajectories.state) + steps, dtype=torch.bool)
    wanted[rows] = True
    starts = rows[trajectories.observed_mask()[rows].all(1)]
    # The last row of a trajectory starts no transition, so chains end there.
    return starts, wanted[starts[:, None] + torch.arange(steps)].cumprod(1).sum(1)


class ChainGather:
    """Builds batches of chains from the rows in which they start.

    Parameters
    ----------
    trajectories : Trajectories
    starts, lengths : Tensor, shape (C,), int64
        Result of :func:`chain_rows`.
    walls : WallContacts, optional
    open_loop : bool
        Whether observed coordinates are only compared with predicted ones, and do not replace them.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        starts: Tensor,
        lengths: Tensor,
        walls: WallContacts | None = None,
        open_loop: bool = False,
    ) -> None:
        device = trajectories.state.device
        self._trajectories, self._row_agent = trajectories, trajectories.row_agent()
        self._length = torch.zeros(len(trajectories.state), dtype=torch.int64, device=device)
        self._length[starts.to(device)] = lengths.to(device)
        self._observed = self._scored = trajectories.observed_mask()
        if walls is not None:
            on_wall = (trajectories.state == walls.low) | (trajectories.state == walls.high)
            self._scored = self._observed & ~on_wall.any(-1, keepdim=True)
        if open_loop:
            self._observed = torch.zeros_like(self._observed)
        duration = trajectories.duration
        self._duration = torch.ones(len(trajectories.state), device=device) if duration is None else duration
        self.rows_each = int(lengths.max()) if len(lengths) else 1

    def __call__(self, rows: Tensor) -> Chains:
        data, step = self._trajectories, torch.arange(self.rows_each, device=rows.device)
        inside = step < self._length[rows][..., None]
        at = torch.where(inside, rows[..., None] + step, rows[..., None])
        after = torch.where(inside, at + 1, at)
        return Chains(
            agent=self._row_agent[rows],
            state=data.state[rows],
            action=data.action[at],
            duration=self._duration[at] * inside,
            target=data.state[after],
            observed=self._observed[after] & inside[..., None],
            scored=self._scored[after] & inside[..., None],
        )
