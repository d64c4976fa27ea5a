"""Splits and batches: every transition where it belongs, on one rank or several."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from persim_lightning.data.batches import ChunkedBatches, TransitionGather, ValidationBatches
from persim_lightning.data.datamodule import open_data
from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.data.tables.sources import write_table
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError, TableError
from persim_lightning.types import Schema

pytestmark = pytest.mark.usefixtures("quick_figures")


@pytest.fixture
def data():
    """Agents with 10, 20 and 3 transitions; a state that names its row."""
    rows = [(agent, t) for agent, length in enumerate((10, 20, 3)) for t in range(length + 1)]
    table = pa.table(
        {
            "agent": [agent for agent, _ in rows],
            "t": [t for _, t in rows],
            "s": [float(index) for index in range(len(rows))],
            "action": [index % 2 for index in range(len(rows))],
        }
    )
    return trajectories_from_table(table, Schema(("s",), ("action",), 2), "t")


def test_validation_is_the_tail_of_every_trajectory(data):
    head, tail = data.split_rows(0.2)
    assert tail.tolist() == [8, 9, 27, 28, 29, 30]
    assert head.tolist() == [*range(8), *range(11, 27), 32, 33, 34]
    assert set(data.row_agent()[head].tolist()) == {0, 1, 2}


def batches(data, **changes):
    rows, _ = data.split_rows(0.0)
    settings = {"batch_size": 8, "members": 3, "seed": 1, "epoch": lambda: 0, **changes}
    return ChunkedBatches(TransitionGather(data), rows, **settings)


def test_an_epoch_visits_rows_at_most_once_in_a_different_order_for_every_member(data):
    loader = batches(data)
    [chunk] = list(loader)
    assert len(loader) == 1
    assert chunk.state.shape == (4, 3, 8, 1)
    orders = chunk.state[..., 0].transpose(0, 1).flatten(1)
    for order in orders:
        assert len(order.unique()) == 32
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(chunk.agent, data.row_agent()[chunk.state[..., 0].long()])
    assert torch.equal(chunk.delta, torch.ones_like(chunk.delta))


def test_order_depends_on_seed_and_epoch_only(data):
    def first(**changes):
        return next(iter(batches(data, **changes))).state

    assert torch.equal(first(), first())
    assert not torch.equal(first(), first(epoch=lambda: 1))
    assert not torch.equal(first(), first(seed=2))


def test_ranks_share_the_batches_of_one_process(data):
    whole = next(iter(batches(data))).state
    shares = [next(iter(batches(data, rank=rank, world_size=2))).state for rank in range(2)]
    assert torch.equal(torch.cat(shares, dim=2), whole)


def test_batch_size_must_divide_by_ranks(data):
    with pytest.raises(ConfigurationError, match="multiple of the number of processes 3"):
        batches(data, world_size=3)


def test_validation_batches_hold_every_row_once(data):
    _, rows = data.split_rows(0.2)
    [batch] = list(ValidationBatches(TransitionGather(data), rows, members=2))
    assert batch.state[0, :, 0].long().tolist() == rows.tolist()
    assert batch.state.shape[0] == 2


def test_statistics(data):
    rows, _ = data.split_rows(0.0)
    statistics = data.statistics(rows)
    assert statistics.delta_rms.tolist() == [1.0]
    assert statistics.state_mean.item() == pytest.approx(data.state[rows].mean().item())
    assert statistics.action_mean.shape == (0,)


def test_missing_files_and_unknown_test_agents(tmp_path, columns):
    with pytest.raises(ConfigurationError, match=r"nowhere\.parquet: no such file"):
        open_data("mountaincar", path=tmp_path / "nowhere.parquet")
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    write_table(pa.table(columns), train)
    write_table(pa.table({**columns, "agent": [0, 0, 0, 8, 8, 8]}), test)
    assert open_data("mountaincar", path=train).num_agents == 2
    with pytest.raises(ConfigurationError, match="agent 8 is not in the training table"):
        open_data("mountaincar", path=train, test_path=test)
    with pytest.raises(TableError, match="missing column"):
        open_data("cartpole", path=train)


def test_check_asks_for_batches_that_the_ranks_can_share(tmp_path, columns):
    """A table smaller than a batch is rounded to the ranks; a configured size is not."""
    path = tmp_path / "train.parquet"
    write_table(
        pa.table(
            {
                **columns,
                "agent": [0, 0, 0, 0, 7, 7],
                "t": [0, 1, 2, 3, 0, 1],
                "action": [0] * 6,
                "terminated": [False] * 6,
            }
        ),
        path,
    )
    open_data("mountaincar", path=path, batch_size=512, val_fraction=0.4).check(world_size=2)
    with pytest.raises(ConfigurationError, match="batch_size 3 must be a multiple of the number of processes 2"):
        open_data("mountaincar", path=path, batch_size=3, val_fraction=0).check(world_size=2)


def test_makes_the_data_set_once(tmp_path):
    module = open_data("cartpole", root=tmp_path, agents=6)
    assert module.num_agents == 6
    assert module.schema.state == get_environment("cartpole").state_names
    table = Path(module.recordings.files["path"])
    before = table.stat().st_mtime_ns
    open_data("cartpole", root=tmp_path, agents=6)
    assert table.stat().st_mtime_ns == before
