"""Visited cells, and recovery of the tensor from them."""

import numpy as np
import pyarrow as pa
import torch

from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.tables.sources import write_table
from persim_lightning.theory.observed import observed_curve, visited_cells
from persim_lightning.types import Schema


def test_rows_visit_the_nearest_cells(tmp_path):
    columns = {
        "agent": [3, 3, 3, 8, 8],
        "t": [0, 1, 2, 0, 1],
        "x": [0.0, 0.9, 0.0, 2.2, 0.0],
        "action": [1, 0, None, 1, None],
    }
    write_table(pa.table(columns), tmp_path / "t.parquet")
    trajectories = load_trajectories(tmp_path / "t.parquet", Schema(("x",), ("action",), 2))
    states = torch.tensor([[0.1], [1.0], [2.0]])
    visited = visited_cells(trajectories, torch.tensor([0, 1]), states, torch.arange(2))
    assert visited.nonzero().tolist() == [[0, 0, 1], [0, 1, 0], [1, 2, 1]]
    assert visited_cells(trajectories, torch.tensor([1]), states, torch.arange(2)).nonzero().tolist() == [[0, 2, 1]]


def test_continuous_actions_count_for_the_nearest_one(tmp_path):
    columns = {"agent": [0, 0, 0], "t": [0, 1, 2], "x": [0.0, 1.0, 0.0], "force": [-0.9, 0.4, None]}
    write_table(pa.table(columns), tmp_path / "t.parquet")
    trajectories = load_trajectories(tmp_path / "t.parquet", Schema(("x",), ("force",), None))
    actions = torch.tensor([[-1.0], [0.5], [1.0]])
    visited = visited_cells(trajectories, torch.tensor([0]), torch.tensor([[0.0], [1.0]]), actions)
    assert visited.nonzero().tolist() == [[0, 0, 0], [0, 1, 1]]


def test_where_every_cell_is_visited_nothing_is_left_to_tell():
    curve = observed_curve(np.ones((2, 3, 2, 1)), torch.ones(2, 3, 2, dtype=torch.bool), (1, 2))
    assert (curve.share, curve.ranks, curve.unseen) == (1.0, [], [])


def test_a_third_of_the_cells_tells_a_low_rank_tensor_and_too_low_a_rank_does_not():
    rng = np.random.default_rng(0)
    factors = [rng.normal(size=(size, 2)) for size in (20, 30, 4)]
    tensor = np.einsum("nr,sr,ar->nsa", *factors)[..., None] * np.ones(2)
    visited = torch.rand(20, 30, 4, generator=torch.Generator().manual_seed(0)) < 0.35
    curve = observed_curve(tensor, visited, (1, 2))
    assert abs(curve.share - 0.35) < 0.05
    assert curve.unseen[0] > 0.3
    assert curve.unseen[1] < 0.05
    assert curve.seen[1] < 0.05
