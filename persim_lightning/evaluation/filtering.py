"""Filters trajectories: estimates states that were not observed by predicting them from the rows before."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.population import FittedPopulation
from persim_lightning.models.simulator import Simulator

_ROUNDING = 1e-5
# Rows of all members and trajectories that are filtered at once.
_PART_ROWS = 1 << 18


class PaddedRows(NamedTuple):
    """Trajectories of B rows, padded to L columns.

    Attributes
    ----------
    state, observed : Tensor, shape (B, L, D)
    action : Tensor, shape (B, L) int64 or (B, L, A)
    duration : Tensor, shape (B, L)
        Zero after the end of a trajectory.
    row : Tensor, shape (B, L), int64
        Row in the trajectories; the last one after the end.
    """

    state: Tensor
    observed: Tensor
    action: Tensor
    duration: Tensor
    row: Tensor

    @classmethod
    def of(cls, trajectories: Trajectories, numbers: Tensor) -> PaddedRows:
        """Pad some trajectories, given by their numbers (B,)."""
        lengths = trajectories.lengths[numbers]
        step = torch.arange(int(lengths.max()))
        last = trajectories.offsets[numbers + 1] - 1
        row = torch.minimum(trajectories.offsets[numbers][:, None] + step, last[:, None])
        duration = torch.ones(row.shape) if trajectories.duration is None else trajectories.duration[row]
        return cls(
            state=trajectories.state[row],
            observed=trajectories.observed_mask()[row],
            action=trajectories.action[row],
            duration=torch.where(step < lengths[:, None] - 1, duration, 0.0),
            row=row,
        )


@torch.no_grad()
def filter_rows(simulator: Simulator, factors: Tensor, rows: PaddedRows) -> Tensor:
    """Estimate the states of all rows: observed coordinates are kept, others are predicted.

    Sub-steps are counted from the last row that changes something, a measurement or another action. Rows in between,
    which only ask for a state, therefore do not change the states after them.

    Parameters
    ----------
    simulator : Simulator
    factors : Tensor, shape (M, B, R)
    rows : PaddedRows

    Returns
    -------
    Tensor, shape (M, B, L, D)
    """
    members = simulator.members
    # State at the last whole base step since something changed, and the share of a base step since then.
    anchor = rows.state[:, 0].expand(members, *rows.state[:, 0].shape)
    share = torch.zeros(len(rows.state))
    estimates = [anchor]
    for step in range(1, rows.state.shape[1]):
        before, now = rows.action[:, step - 1], rows.action[:, step]
        action = before.expand(members, *before.shape)
        elapsed = share + rows.duration[:, step - 1]
        whole = (elapsed + _ROUNDING).floor()
        share = (elapsed - whole).clamp(min=0)
        anchor = simulator.advance(factors, anchor, action, whole)
        predicted = anchor if not bool(share.any()) else simulator.advance(factors, anchor, action, share)
        estimate = torch.where(rows.observed[:, step], rows.state[:, step], predicted)
        estimates.append(estimate)
        changed = (before != now).view(len(now), -1).any(1) | rows.observed[:, step].any(1)
        anchor = torch.where(changed[:, None], estimate, anchor)
        share = torch.where(changed, 0.0, share)
    return torch.stack(estimates, dim=2)


def filtered(population: FittedPopulation, recorded: Trajectories) -> Trajectories:
    """Replace the states of recorded trajectories that were not observed by :func:`filtered_states`."""
    return recorded if recorded.observed is None else replace(recorded, state=filtered_states(population, recorded))


def filtered_states(population: FittedPopulation, recorded: Trajectories) -> Tensor:
    """Estimate the states (R, D) of recorded trajectories by the mean over members; observed ones are kept."""
    if recorded.observed is None:
        return recorded.state
    simulator, agents = population.simulator, population.index(recorded.agent_ids)
    state = recorded.state.clone()
    size = max(1, _PART_ROWS // (simulator.members * int(recorded.lengths.max())))
    for numbers in torch.arange(recorded.num_trajectories).split(size):
        rows = PaddedRows.of(recorded, numbers)
        factors = simulator.agent_encoder(agents[recorded.agent[numbers]].expand(simulator.members, -1))
        estimates = filter_rows(simulator, factors, rows).mean(0)
        state[rows.row.flatten()] = estimates.flatten(0, 1)
    return state
