"""Collected data: the environment's own dynamics, reproducible, whole or not at all."""

import multiprocessing

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from persim_lightning.data.collecting.behavior import DATASETS, RandomPolicy
from persim_lightning.data.collecting.collect import (
    collect_test,
    collect_training,
    ensure_test_data,
    ensure_training_data,
    episodes_table,
)
from persim_lightning.data.collecting.episodes import play
from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.envs import get_environment
from persim_lightning.envs.population import sample_population
from persim_lightning.errors import ConfigurationError
from persim_lightning.support.files import atomic_write, file_sha256

pytestmark = pytest.mark.usefixtures("quick_figures")


@pytest.mark.parametrize("name", ["mountaincar", "cartpole"])
def test_rows_are_steps_of_the_environment(name):
    environment = get_environment(name)
    covariates = sample_population(environment, 8, seed=0)
    table = collect_training(environment, "random", covariates, seed=0)
    data = trajectories_from_table(table, environment.schema, "t")
    rows, _ = data.split_rows(0.0)
    agent = data.row_agent()[rows]
    batch = environment.make_batch(covariates[agent], seed=0)
    batch.states = torch.from_numpy(np.stack([table[name].to_numpy() for name in environment.state_names], 1))[rows]
    expected = (
        batch.step(data.action[rows])
        - torch.from_numpy(np.stack([table[name].to_numpy() for name in environment.state_names], 1))[rows]
    )
    torch.testing.assert_close(data.delta[rows], expected.float())


def test_episodes_end_where_the_environment_ends_and_no_row_follows():
    environment = get_environment("cartpole")
    table = collect_training(environment, "random", sample_population(environment, 20, seed=0), seed=0)
    data = trajectories_from_table(table, environment.schema, "t")
    last = data.offsets[1:] - 1
    assert environment.terminated(data.state[last]).tolist() == data.terminated.tolist()
    others = torch.ones(len(data.state), dtype=torch.bool)
    others[last] = False
    assert not environment.terminated(data.state[others]).any()
    assert data.terminated.any()


def test_cut_episodes_have_max_steps_and_are_not_terminated():
    environment = get_environment("mountaincar")
    covariates = sample_population(environment, 5, seed=0)
    table = episodes_table(environment, play(environment, RandomPolicy(environment), covariates, 7, 0))
    names = ["agent", *table.column_names[1:]]
    data = trajectories_from_table(table.rename_columns(names), environment.schema, "t")
    assert data.lengths.tolist() == [8] * 5
    assert not data.terminated.any()


def test_test_table_has_the_protocols_episodes():
    environment = get_environment("cartpole")
    data = trajectories_from_table(collect_test(environment, 3, seed=0), environment.schema, "t")
    assert data.agent.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert data.lengths.max() <= 61


def test_unknown_dataset(tmp_path):
    with pytest.raises(ConfigurationError, match="choose from pure, random, pure-eps-20, pure-eps-40"):
        ensure_training_data(tmp_path, get_environment("cartpole"), "expert", 5, 0)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("dataset", DATASETS)
def test_same_seed_same_hash(tmp_path, dataset):
    environment = get_environment("cartpole")

    def made(folder, seed):
        return file_sha256(ensure_training_data(tmp_path / folder, environment, dataset, 6, seed).table)

    assert made("one", 1) == made("two", 1)
    assert made("one", 1) != made("one", 2)


def test_rewards_are_the_environments():
    environment = get_environment("mountaincar")
    table = collect_training(environment, "pure", sample_population(environment, 20, seed=0), seed=0)
    data = trajectories_from_table(table, environment.schema, "t")
    assert data.terminated.any()
    assert not data.terminated.all()
    # -1 a step, and 0 for the one that reaches the goal.
    expected = -(data.lengths - 1).double() + data.terminated.double()
    assert data.returns().tolist() == expected.tolist()


def _collect_into(root):
    ensure_training_data(root, get_environment("cartpole"), "random", 30, 0)


@pytest.mark.slow
def test_two_processes_collect_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_collect_into, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    _collect_into(tmp_path / "alone")
    [one, other] = sorted(tmp_path.rglob("train.parquet"))
    assert pq.read_table(one).equals(pq.read_table(other))
    names = [".lock", "agents.parquet", "card.json", "card.md", "coverage.png", "train.parquet"]
    assert sorted(path.name for path in one.parent.iterdir()) == sorted(names)


def test_test_data_are_made_once_for_all_data_sets(tmp_path):
    environment = get_environment("mountaincar")
    path = ensure_test_data(tmp_path, environment, seed=0)
    assert path == tmp_path / "mountaincar/test-seed0/test.parquet"
    made = path.stat().st_mtime_ns
    assert ensure_test_data(tmp_path, environment, seed=0).stat().st_mtime_ns == made
    data = trajectories_from_table(pq.read_table(path), environment.schema, "t")
    assert torch.bincount(data.agent).tolist() == [200] * 5


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write_and_fail():
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_and_fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
