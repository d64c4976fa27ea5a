"""Trajectories as flat tensors: the rows of all trajectories in sequence, with the offset at which each one starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from persim_lightning.errors import TableError
from persim_lightning.types import Schema, Statistics, Transitions, WallContacts

# An extreme value is a wall if at least so many states have exactly this value.
WALL_CONTACTS = 10
# Tensors with an entry for every row.
_ROW_TENSORS = ("state", "action", "delta", "reward", "time", "observed", "duration", "inserted")
# Scale of a Δ that is always zero; small enough to round every prediction to zero.
_ZERO_DELTA_SCALE = 1e-20


@dataclass(frozen=True)
class Trajectories:
    """E trajectories of N agents, R rows in all.

    Attributes
    ----------
    schema : Schema
    agent_ids : tuple of int or str
        Id of every agent; the position in the tuple is the agent's index.
    agent : Tensor, shape (E,), int64
        Agent index of each trajectory.
    offsets : Tensor, shape (E+1,), int64
        Trajectory e occupies rows `offsets[e]` … `offsets[e+1] - 1`.
    state : Tensor, shape (R, D), of the schema's type
        Coordinates that were not observed hold the last observed value of the trajectory.
    action : Tensor, shape (R,) int64 or (R, A) float32
        Unused (zero) in the last row of a trajectory.
    delta : Tensor, shape (R, D), float32
        Next state minus state, subtracted in float64; zero in the last row of a trajectory.
    terminated : Tensor, shape (E,), bool
        Whether the trajectory terminated (it was truncated otherwise).
    reward : Tensor, shape (R,), float32, or None
        Reward of the step from this row to the next, zero in the last row of a trajectory; None if the table has no
        rewards.
    time : Tensor, shape (R,), float64, or None
        Time of the row in the user's table, dates in seconds; None if the table counts steps.
    observed : Tensor, shape (R, D), bool, or None
        Coordinates that were observed; None if all were.
    duration : Tensor, shape (R,), float32, or None
        Base steps from the row to the next one, zero in the last row of a trajectory; None if all are 1.
    inserted : Tensor, shape (R,), bool, or None
        Rows that are not in the user's table, see :func:`~persim_lightning.data.tables.events.spread_events`.
    final_action : Tensor, shape (E,) int64 or (E, A) float32, or None
        Actions in the last rows of trajectories of a user's table, which forecasts start with; -1 or NaN if empty.
    covariates : Tensor, shape (N, C), float64, or None
        Encoded covariates of agents, NaN where missing; None if the table has none.
    """

    schema: Schema
    agent_ids: tuple[int | str, ...]
    agent: Tensor
    offsets: Tensor
    state: Tensor
    action: Tensor
    delta: Tensor
    terminated: Tensor
    reward: Tensor | None = None
    time: Tensor | None = None
    observed: Tensor | None = None
    duration: Tensor | None = None
    inserted: Tensor | None = None
    final_action: Tensor | None = None
    covariates: Tensor | None = None

    @property
    def is_regular(self) -> bool:
        """Whether all states are observed and all rows are one base step apart."""
        return self.observed is None and self.duration is None

    def observed_mask(self) -> Tensor:
        """Return which coordinates were observed, shape (R, D), bool."""
        return torch.ones_like(self.state, dtype=torch.bool) if self.observed is None else self.observed

    def in_table(self) -> Tensor:
        """Return which rows are in the user's table, and were not inserted, shape (R,), bool."""
        return torch.ones(len(self.state), dtype=torch.bool) if self.inserted is None else ~self.inserted

    def rows(self, index: Tensor | slice) -> dict[str, Any]:
        """Select rows of all tensors that have one for every row, by name."""
        values = {name: getattr(self, name) for name in _ROW_TENSORS}
        return {name: None if value is None else value[index] for name, value in values.items()}

    @property
    def num_agents(self) -> int:
        return len(self.agent_ids)

    @property
    def num_trajectories(self) -> int:
        return len(self.agent)

    @property
    def lengths(self) -> Tensor:
        """Rows of each trajectory, shape (E,)."""
        return self.offsets.diff()

    def joined(self, other: Trajectories) -> Trajectories:
        """Append the trajectories of other agents, which must have the same columns."""
        optional: dict[str, Any] = {}
        for name in ("reward", "time", "final_action"):
            one, two = getattr(self, name), getattr(other, name)
            optional[name] = None if one is None or two is None else torch.cat((one, two))
        optional["covariates"] = self._joined_covariates(other)
        optional |= {name: self._joined_rows(other, name) for name in ("observed", "duration", "inserted")}
        rows = {name: torch.cat((getattr(self, name), getattr(other, name))) for name in ("state", "action", "delta")}
        return Trajectories(
            schema=self.schema,
            agent_ids=(*self.agent_ids, *other.agent_ids),
            agent=torch.cat((self.agent, other.agent + self.num_agents)),
            offsets=torch.cat((self.offsets, other.offsets[1:] + self.offsets[-1])),
            terminated=torch.cat((self.terminated, other.terminated)),
            **rows,
            **optional,
        )

    def _joined_covariates(self, other: Trajectories) -> Tensor | None:
        """Concatenate covariates; those of a table without them are missing."""
        one, two = self.covariates, other.covariates
        if one is None and two is None:
            return None
        width = one.shape[1] if one is not None else two.shape[1]  # type: ignore[union-attr]
        missing = [torch.full((part.num_agents, width), torch.nan, dtype=torch.float64) for part in (self, other)]
        return torch.cat((missing[0] if one is None else one, missing[1] if two is None else two))

    def _joined_rows(self, other: Trajectories, name: str) -> Tensor | None:
        """Concatenate a tensor that stands for its usual value where it is None."""
        parts = [getattr(part, name) for part in (self, other)]
        if parts[0] is None and parts[1] is None:
            return None
        usual = {
            "observed": lambda part: torch.ones_like(part.state, dtype=torch.bool),
            "duration": lambda part: torch.ones(len(part.state)).index_fill(0, part.offsets[1:] - 1, 0.0),
            "inserted": lambda part: torch.zeros(len(part.state), dtype=torch.bool),
        }[name]
        return torch.cat(
            [usual(whole) if part is None else part for whole, part in zip((self, other), parts, strict=True)]
        )

    def trajectory(self, number: int) -> Trajectories:
        """Select one trajectory by its number."""
        start, end = self.offsets[number : number + 2].tolist()
        agent = int(self.agent[number])
        return Trajectories(
            schema=self.schema,
            agent_ids=(self.agent_ids[agent],),
            agent=torch.zeros(1, dtype=torch.int64),
            offsets=torch.tensor([0, end - start]),
            terminated=self.terminated[[number]],
            final_action=None if self.final_action is None else self.final_action[[number]],
            covariates=None if self.covariates is None else self.covariates[[agent]],
            **self.rows(slice(start, end)),
        )

    def with_known_covariates(self, known: Trajectories) -> Trajectories:
        """Fill missing covariates of agents by those that are known of them."""
        if known.covariates is None:
            return self
        rows = {label: row for row, label in enumerate(known.agent_ids)}
        none = torch.full((known.covariates.shape[1],), torch.nan, dtype=torch.float64)
        before = torch.stack([known.covariates[rows[label]] if label in rows else none for label in self.agent_ids])
        own = before if self.covariates is None else torch.where(self.covariates.isnan(), before, self.covariates)
        return replace(self, covariates=own)

    def rows_of_agents(self, agents: Tensor) -> Tensor:
        """Rows that start a transition of the agents with these indices."""
        rows, _ = self.split_rows(0.0)
        return rows[torch.isin(self.row_agent()[rows], agents)]

    def restricted(self, agents: Sequence[int | str]) -> Trajectories:
        """Select the trajectories of the agents with these ids, in this order."""
        old_index = {label: index for index, label in enumerate(self.agent_ids)}
        # Index of every agent in the result; len(agents) marks those that are dropped.
        new_index = torch.full((self.num_agents,), len(agents))
        new_index[torch.tensor([old_index[label] for label in agents])] = torch.arange(len(agents))
        order = new_index[self.agent].argsort(stable=True)
        selected = order[new_index[self.agent[order]] < len(agents)]
        rows = torch.cat([torch.arange(*self.offsets[number : number + 2].tolist()) for number in selected.tolist()])
        final = None if self.final_action is None else self.final_action[selected]
        return Trajectories(
            schema=self.schema,
            agent_ids=tuple(agents),
            agent=new_index[self.agent[selected]],
            offsets=torch.cat((torch.zeros(1, dtype=torch.int64), self.lengths[selected].cumsum(0))),
            terminated=self.terminated[selected],
            final_action=final,
            covariates=None if self.covariates is None else self.covariates[[old_index[label] for label in agents]],
            **self.rows(rows),
        )

    def action_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest recorded value of every coordinate of continuous actions, shape (A,) each."""
        actions = self.action[self.split_rows(0.0)[0]]
        return actions.amin(0), actions.amax(0)

    def returns(self) -> Tensor:
        """Undiscounted return of each trajectory, shape (E,), float64.

        Raises
        ------
        TableError
            If the table has no rewards.
        """
        if self.reward is None:
            raise TableError(f"the table has no column '{self.schema.reward}'; returns need rewards")
        trajectory = torch.repeat_interleave(torch.arange(self.num_trajectories), self.lengths)
        return torch.zeros(self.num_trajectories, dtype=torch.float64).index_add_(0, trajectory, self.reward.double())

    def world(self) -> list[tuple[float, float]]:
        """Limits of every state: the recorded range, widened by its width on each side, within the schema's limits."""
        low, high = self.state.amin(0).double(), self.state.amax(0).double()
        # A state that never changed has no width.
        width = torch.where(high > low, high - low, torch.inf)
        limits = torch.tensor(self.schema.limits or ((-torch.inf, torch.inf),) * len(low), dtype=torch.float64)
        low, high = torch.maximum(low - width, limits[:, 0]), torch.minimum(high + width, limits[:, 1])
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def to(self, device: torch.device) -> Trajectories:
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)

    def row_time(self) -> Tensor:
        """Time of every row, shape (R,), float64: from the user's table, or the number of the step."""
        if self.time is not None:
            return self.time
        return (torch.arange(len(self.state)) - torch.repeat_interleave(self.offsets[:-1], self.lengths)).double()

    def row_agent(self) -> Tensor:
        """Agent index of every row, shape (R,)."""
        return torch.repeat_interleave(self.agent, self.lengths)

    def split_rows(self, tail_fraction: float) -> tuple[Tensor, Tensor]:
        """Rows that start a transition, split into the head and the tail of every trajectory.

        Parameters
        ----------
        tail_fraction : float
            Share of each trajectory's transitions, rounded down, that belongs to the tail. Trajectories are split, not
            agents: an agent without training rows would have no factor.

        Returns
        -------
        head, tail : Tensor, int64
        """
        step = torch.arange(len(self.state)) - torch.repeat_interleave(self.offsets[:-1], self.lengths)
        head_end = torch.repeat_interleave(self.tail_starts(tail_fraction), self.lengths)
        end = torch.repeat_interleave(self.lengths - 1, self.lengths)
        return (step < head_end).nonzero()[:, 0], ((step >= head_end) & (step < end)).nonzero()[:, 0]

    def tail_starts(self, tail_fraction: float) -> Tensor:
        """First step of each trajectory's tail in :meth:`split_rows`, shape (E,), int64."""
        transitions = self.lengths - 1
        return transitions - (transitions * tail_fraction).floor().long()

    def transitions(self, rows: Tensor, row_agent: Tensor) -> Transitions:
        """Transitions that start in `rows`, an index of any shape; `row_agent` is the result of :meth:`row_agent`."""
        return Transitions(row_agent[rows], self.state[rows], self.action[rows], self.delta[rows])

    def walls(self) -> WallContacts:
        """Detect walls, at which recorded states pile up.

        A continuous coordinate takes its smallest (or largest) value only once, unless something stops it there. An
        extreme value that at least 10 states have exactly is therefore a wall.
        """
        sides = []
        for extreme, free in ((self.state.amin(0), -torch.inf), (self.state.amax(0), torch.inf)):
            touching = self.state == extreme
            # Many trajectories may start in the same state; this is not a wall.
            touching[self.offsets[:-1]] = False
            is_wall = (touching.sum(0) >= WALL_CONTACTS) & (self.state != extreme).any(0)
            contact = torch.full((len(extreme), len(extreme)), torch.nan)
            for coordinate in is_wall.nonzero()[:, 0].tolist():
                states = self.state[touching[:, coordinate]]
                contact[coordinate] = torch.where((states == states[0]).all(0), states[0], torch.nan)
            sides.append((torch.where(is_wall, extreme, free), contact))
        (low, low_contact), (high, high_contact) = sides
        return WallContacts(low, high, low_contact, high_contact)

    def starts_of_contacts(self, walls: WallContacts) -> Tensor:
        """Rows whose next state is on a wall, shape (R,), bool: the wall decided that state, not free motion."""
        on_wall = ((self.state == walls.low) | (self.state == walls.high)).any(-1)
        return torch.cat((on_wall[1:], on_wall.new_zeros(1)))

    def ends(self, rows: Tensor) -> Tensor:
        """Whether the transitions that start in `rows` (T,) ended their trajectory for good, shape (T,), bool."""
        last = torch.zeros(len(self.state), dtype=torch.bool)
        last[self.offsets[1:] - 1] = self.terminated
        return last[rows + 1]

    def free_rows(self, rows: Tensor, walls: WallContacts | None) -> Tensor:
        """Those of `rows`, which start transitions, whose transition does not end on a wall."""
        return rows if walls is None else rows[~self.starts_of_contacts(walls)[rows]]

    def statistics(self, rows: Tensor) -> Statistics:
        """Normalization constants of the transitions that start in `rows`.

        The scale of a constant column is one. The scale of a Δ that is always zero rounds every prediction to zero.
        """

        def scale(values: Tensor, constant: float = 1.0) -> Tensor:
            return torch.where(values > 0, values, constant).float()

        state = self.state[rows].double()
        action = self.action[rows].double() if self.action.ndim > 1 else state.new_zeros(len(rows), 0)
        return Statistics(
            state_mean=state.mean(0).float(),
            state_std=scale((state - state.mean(0)).square().mean(0).sqrt()),
            state_low=self.state.amin(0),
            state_high=self.state.amax(0),
            delta_rms=scale(self._delta_rms(rows), _ZERO_DELTA_SCALE),
            action_mean=action.mean(0).float(),
            action_std=scale((action - action.mean(0)).square().mean(0).sqrt()),
        )

    def _delta_rms(self, rows: Tensor) -> Tensor:
        """Root mean square of Δs, shape (D,), float64; in an uneven table of those per base step."""
        if self.is_regular:
            return self.delta[rows].double().square().mean(0).sqrt()
        both = self.observed_mask()[rows] & self.observed_mask()[rows + 1]
        change = torch.where(both, self.state[rows + 1].double() - self.state[rows].double(), 0.0)
        span = torch.ones(len(rows)) if self.duration is None else self.duration[rows]
        # A ratio of sums: single Δs over short times would be dominated by noise.
        weight = torch.where(both, span[:, None].double(), 0.0)
        rate = (change.square().sum(0) / weight.square().sum(0).clamp(min=1e-12)).sqrt()
        # Coordinates that are never observed in two consecutive rows.
        return torch.where(both.any(0), rate, self.observed_std())

    def observed_std(self) -> Tensor:
        """Standard deviation of the observed states, shape (D,), float64; NaN where there are none."""
        states = torch.where(self.observed_mask(), self.state, torch.nan).double()
        return (states - states.nanmean(0)).square().nanmean(0).sqrt()
