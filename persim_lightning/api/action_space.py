"""Builds the action space of a table: recorded ranges of numbers, and categories."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.planning.actions import ActionSpace, Box, Discrete
from persim_lightning.types import Schema


def table_action_space(trajectories: Trajectories) -> tuple[ActionSpace, Callable[[Tensor], Tensor]]:
    """Build the action space of a table; inputs are no part of it.

    Parameters
    ----------
    trajectories : Trajectories

    Returns
    -------
    space : ActionSpace
        Discrete for a single column of categories; otherwise coordinates in [-1, 1].
    realize : callable, (plans (...)|(..., A)) -> actions of the same shape
        Converts plans to actions: numbers in their recorded ranges, and one category by its largest indicator.
    """
    schema = trajectories.schema
    if schema.num_actions is not None:
        return Discrete(schema.num_actions), lambda plans: plans
    lowest, highest = (values[: decided_coordinates(schema)] for values in trajectories.action_range())

    def realize(plans: Tensor) -> Tensor:
        # Indicators range from 0 to 1, so scaling keeps their order.
        return one_category_each(lowest + (plans + 1) / 2 * (highest - lowest), schema)

    return Box(len(lowest)), realize


def one_category_each(actions: Tensor, schema: Schema) -> Tensor:
    """Set the largest indicator of every decided category to 1 and the others to 0, actions (..., A)."""
    columns = [column for column in schema.user_actions if column.name not in schema.inputs]
    widths = [1 if column.categories is None else len(column.categories) for column in columns]
    parts = [
        part if column.categories is None else torch.zeros_like(part).scatter_(-1, part.argmax(-1, keepdim=True), 1.0)
        for part, column in zip(actions.split(widths, -1), columns, strict=True)
    ]
    return torch.cat(parts, dim=-1)


def decided_coordinates(schema: Schema) -> int:
    """Number of leading coordinates of actions that are decided; the others are inputs."""
    columns = [column for column in schema.user_actions if column.name not in schema.inputs]
    return sum(1 if categories is None else len(categories) for _, categories in columns)
