"""What a planner searches over where actions are a table's: recorded ranges of amounts, and categories."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.planning.actions import ActionSpace, Box, Discrete


def table_action_space(trajectories: Trajectories) -> tuple[ActionSpace, Callable[[Tensor], Tensor]]:
    """The space of a table's actions.

    Parameters
    ----------
    trajectories : Trajectories

    Returns
    -------
    space : ActionSpace
        Codes of a single column of categories; coordinates in [-1, 1] otherwise.
    realise : callable, (plans (...)|(..., A)) -> actions of the same shape
        What the space's plans stand for: amounts in their recorded ranges; of a category's indicators the largest one
        counts.
    """
    schema = trajectories.schema
    if schema.num_actions is not None:
        return Discrete(schema.num_actions), lambda plans: plans
    recorded = trajectories.action[trajectories.split_rows(0.0)[0]]
    categories = [column.categories for column in schema.actions_as_given]
    widths = [1 if known is None else len(known) for known in categories]
    ranges = recorded.amin(0).split(widths), recorded.amax(0).split(widths)

    def realise(plans: Tensor) -> Tensor:
        parts = []
        for part, lowest, highest, known in zip(plans.split(widths, -1), *ranges, categories, strict=True):
            if known is None:
                parts.append(lowest + (part + 1) / 2 * (highest - lowest))
            else:
                parts.append(torch.zeros_like(part).scatter_(-1, part.argmax(-1, keepdim=True), 1.0))
        return torch.cat(parts, dim=-1)

    return Box(recorded.shape[1]), realise
