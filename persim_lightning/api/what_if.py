"""Counterfactuals in uneven tables: rows of one agent from a recorded moment on, under other actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from persim_lightning.data.tables.events import own_events, spread_events
from persim_lightning.data.trajectories import Trajectories


def what_if_rows(recorded: Trajectories, row: int, actions: np.ndarray | None) -> tuple[Trajectories, np.ndarray]:
    """Build the trajectory that starts in a recorded row and of which only the first state is known.

    Parameters
    ----------
    recorded : Trajectories
        Of an uneven table.
    row : int
        Recorded row, not an inserted one.
    actions : ndarray, shape (H,) or (H, A), or None
        Each acts from a recorded row to the next, and for one base step after the last one; None for the recorded ones.
        Events before the row act on.

    Returns
    -------
    rows : Trajectories
        A single trajectory; its rows that are not inserted are recorded ones, and base steps after them.
    actions : ndarray, shape (H,) or (H, A)
    """
    number = int(torch.searchsorted(recorded.offsets, row, right=True)) - 1
    whole = recorded.trajectory(number)
    assert whole.duration is not None
    events = [recorded.schema.action.index(name) for name in recorded.schema.events]
    kept = whole.in_table()
    time = torch.cat((torch.zeros(1).double(), whole.duration[:-1].double().cumsum(0)))[kept]
    acted = own_events(whole, events).action[kept]
    start = int(kept[: row - int(recorded.offsets[number])].sum())
    asked = acted[start:-1] if actions is None else torch.as_tensor(actions).to(acted.dtype)
    end = start + len(asked)
    time = torch.cat((time, time[-1] + torch.arange(1.0, end - len(time) + 2)))[: end + 1]
    state = whole.state.new_zeros(end + 1, whole.state.shape[1])
    state[start] = recorded.state[row]
    unknown: dict[str, Any] = dict.fromkeys(("observed", "reward", "time", "inserted", "final_action"))
    changed = replace(
        whole,
        offsets=torch.tensor([0, end + 1]),
        state=state,
        action=torch.cat((acted[:start], asked, torch.zeros_like(acted[:1]))),
        delta=torch.zeros_like(state),
        duration=torch.cat((time.diff().float(), torch.zeros(1))),
        **unknown,
    )
    spread = spread_events(changed, events)
    return _from_row(spread, int(spread.in_table().nonzero()[start])), asked.numpy()


def _from_row(whole: Trajectories, start: int) -> Trajectories:
    """Remove the rows before one whose state is the only one that is known."""
    rows = whole.rows(slice(start, None))
    observed = torch.zeros_like(rows["state"], dtype=torch.bool)
    observed[0] = True
    return replace(whole, offsets=torch.tensor([0, len(observed)]), **{**rows, "observed": observed})
