"""Collected data: the environment's own dynamics, reproducible, whole or not at all."""

import multiprocessing

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from persim_lightning.data import behavior
from persim_lightning.data.behavior import NetworkPolicy, RandomPolicy, packaged_policy_info
from persim_lightning.data.collect import collect, collect_test, collect_training, ensure_dataset
from persim_lightning.data.table import trajectories_from_table
from persim_lightning.envs import get_environment
from persim_lightning.envs.population import sample_population
from persim_lightning.errors import ConfigurationError
from persim_lightning.files import atomic_write
from persim_lightning.types import Schema


def schema_of(environment):
    return Schema(environment.state_names, environment.action_names, environment.num_actions)


@pytest.mark.parametrize("name", ["mountaincar", "cartpole"])
def test_rows_are_steps_of_the_environment(name):
    environment = get_environment(name)
    covariates = sample_population(environment, 8, seed=0)
    table = collect_training(environment, covariates, seed=0)
    data = trajectories_from_table(table, schema_of(environment), "t")
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
    table = collect_training(environment, sample_population(environment, 20, seed=0), seed=0)
    data = trajectories_from_table(table, schema_of(environment), "t")
    last = data.offsets[1:] - 1
    assert environment.terminated(data.state[last]).tolist() == data.terminated.tolist()
    others = torch.ones(len(data.state), dtype=torch.bool)
    others[last] = False
    assert not environment.terminated(data.state[others]).any()
    assert data.terminated.any()


def test_cut_episodes_have_max_steps_and_are_not_terminated():
    environment = get_environment("mountaincar")
    covariates = sample_population(environment, 5, seed=0)
    data = trajectories_from_table(
        collect(environment, RandomPolicy(environment), covariates, 7, 0, "").rename_columns(
            ["agent", "t", "position", "velocity", "action", "terminated"]
        ),
        schema_of(environment),
        "t",
    )
    assert data.lengths.tolist() == [8] * 5
    assert not data.terminated.any()


@pytest.mark.parametrize("name", ["mountaincar", "halfcheetah"])
def test_same_seed_same_table(name):
    environment = get_environment(name)
    covariates = sample_population(environment, 5, seed=0)

    def make(seed):
        return collect(environment, RandomPolicy(environment), covariates, 5, seed, "")

    assert make(1).equals(make(1))
    assert not make(1).equals(make(2))


def test_random_policy_is_uniform():
    generator = torch.Generator().manual_seed(0)
    discrete = RandomPolicy(get_environment("mountaincar"))(torch.zeros(30_000, 2), generator)
    assert torch.bincount(discrete).tolist() == pytest.approx([10_000] * 3, rel=0.05)
    continuous = RandomPolicy(get_environment("halfcheetah"))(torch.zeros(30_000, 18), generator)
    assert continuous.abs().max() <= 1
    assert continuous.var(0).tolist() == pytest.approx([1 / 3] * 6, rel=0.05)


@pytest.mark.parametrize("name", ["mountaincar", "cartpole", "halfcheetah"])
def test_test_policies_do_the_task(name):
    """Test trajectories come from policies that run well: far above random play."""
    environment = get_environment(name)
    default = torch.tensor([[covariate.default for covariate in environment.covariates]], dtype=torch.float64)
    batch = environment.make_batch(default.repeat(10, 1), seed=5)
    generator = torch.Generator().manual_seed(0)
    policy = behavior.test_policy(environment)
    total, running = torch.zeros(10), torch.ones(10, dtype=torch.bool)
    for _ in range(200):
        before = batch.states
        action = policy(before, generator)
        after = batch.step(action)
        total += torch.where(running, environment.reward(before, action, after), 0).float()
        running &= ~environment.terminated(after)
    threshold = {"mountaincar": -170, "cartpole": 120, "halfcheetah": 350}[name]
    assert total.mean() > threshold


def test_packaged_policy_reaches_the_return_that_its_json_states():
    info = packaged_policy_info("halfcheetah_test")
    environment = get_environment("halfcheetah")
    policy = NetworkPolicy.load_packaged("halfcheetah_test")
    covariates = torch.tensor([list(info["covariates"].values())], dtype=torch.float64).repeat(4, 1)
    batch = environment.make_batch(covariates, seed=9)
    total = torch.zeros(4, dtype=torch.float64)
    for _ in range(environment.max_steps):
        before = batch.states
        action = policy(before, torch.Generator())
        total += environment.reward(before, action, batch.step(action))
    assert total.mean().item() == pytest.approx(info["mean_return"], abs=3 * info["std_return"] / 4**0.5)


def test_test_table_has_the_protocols_episodes():
    environment = get_environment("cartpole")
    data = trajectories_from_table(collect_test(environment, 3, seed=0), schema_of(environment), "t")
    assert data.agent.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert data.lengths.max() <= 61


def test_unknown_dataset(tmp_path):
    with pytest.raises(ConfigurationError, match="choose from random"):
        ensure_dataset(tmp_path, get_environment("cartpole"), "expert", 5, 0)
    assert not list(tmp_path.rglob("*.parquet"))


def _collect_into(root):
    ensure_dataset(root, get_environment("cartpole"), "random", 30, 0)


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
    assert sorted(path.name for path in one.parent.iterdir()) == sorted(
        [".lock", "agents.parquet", "test.parquet", "train.parquet"]
    )


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
