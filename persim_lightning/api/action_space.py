"""What a planner searches over where actions are a table's: recorded ranges of amounts, and categories."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.planning.actions import ActionSpace, Box, Discrete
from persim_lightning.types import Schema


def table_action_space(trajectories: Trajectories) -> tuple[ActionSpace, Callable[[Tensor], Tensor]]:
    """The space of a table's actions.

    Parameters
    ----------
    trajectories : Trajectories

    Returns
    -------
    space : ActionSpace
        Codes of a single column of categories; coordinates in [-1, 1] otherwise.
    realize : callable, (plans (...)|(..., A)) -> actions of the same shape
        What the space's plans stand for: amounts in their recorded ranges; of a category's indicators the largest one
        counts.
    """
    schema = trajectories.schema
    if schema.num_actions is not None:
        return Discrete(schema.num_actions), lambda plans: plans
    lowest, highest = trajectories.action_range()

    def realize(plans: Tensor) -> Tensor:
        # Every indicator was recorded as 0 and as 1, so stretching them keeps their order.
        return one_category_each(lowest + (plans + 1) / 2 * (highest - lowest), schema)

    return Box(len(lowest)), realize


def one_category_each(actions: Tensor, schema: Schema) -> Tensor:
    """Coordinates (..., A) of actions with one indicator of every category set: the largest one."""
    widths = [1 if column.categories is None else len(column.categories) for column in schema.user_actions]
    parts = [
        part if column.categories is None else torch.zeros_like(part).scatter_(-1, part.argmax(-1, keepdim=True), 1.0)
        for part, column in zip(actions.split(widths, -1), schema.user_actions, strict=True)
    ]
    return torch.cat(parts, dim=-1)
