"""The observed cells of a dynamics tensor, averaged from rows of data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Largest number of float64 numbers that a computation on one chunk of the cells may allocate: 32 MB.
CHUNK_NUMBERS = 1 << 22


class ObservedCells(NamedTuple):
    """Observed cells of a tensor T[n, (s, d), a]. A cell contains all coordinates d.

    Attributes
    ----------
    shape : tuple of int
        N agents, S state cells, A action cells.
    agent, state, action : Tensor, shape (E,), int64
        Indices of cell e.
    value : Tensor, shape (E, D), float64
        Mean of the rows in the cell.
    weight : Tensor, shape (E,), float64
        Number of these rows.
    """

    shape: tuple[int, int, int]
    agent: Tensor
    state: Tensor
    action: Tensor
    value: Tensor
    weight: Tensor

    def chunks(self, numbers: int) -> Iterator[ObservedCells]:
        """Split the cells for a computation that allocates `numbers` float64 numbers per cell."""
        size = max(1, CHUNK_NUMBERS // numbers)
        for start in range(0, len(self.weight), size):
            yield ObservedCells(self.shape, *(value[start : start + size] for value in self[1:]))


def average_rows(
    agent: Tensor, state: Tensor, action: Tensor, value: Tensor, shape: tuple[int, int, int]
) -> ObservedCells:
    """Average the rows of each cell.

    Parameters
    ----------
    agent, state, action : Tensor, shape (B,), int64
        Cell of every row.
    value : Tensor, shape (B, D)
    shape : tuple of int
        N, S, A.

    Returns
    -------
    ObservedCells
        Sorted by state, agent and action.
    """
    agents, _, actions = shape
    cell, index, count = torch.unique(
        (state * agents + agent) * actions + action, return_inverse=True, return_counts=True
    )
    weight = count.double()
    total = value.new_zeros(len(cell), value.shape[-1], dtype=torch.float64).index_add_(0, index, value.double())
    pair = cell // actions
    return ObservedCells(shape, pair % agents, pair // agents, cell % actions, total / weight[:, None], weight)
