"""Collects data sets of the environments: plays all agents in one batch and writes canonical tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from torch import Tensor

from persim_lightning.data.collecting.behavior import TEST_EPSILON, dataset_policy, describe_dataset, test_policy
from persim_lightning.data.collecting.card import CARD_FILES, CardSource, write_card
from persim_lightning.data.collecting.episodes import Episodes, play
from persim_lightning.data.tables.sources import write_table
from persim_lightning.envs import Environment
from persim_lightning.envs.population import sample_population

# The prediction protocol scores t = 10 … 60 of 200 episodes per test agent.
TEST_EPISODES = 200
TEST_STEPS = 60
# Added to the seed, so that test episodes have other initial states than training trajectories.
_TEST_SEED = 1_000_000


def episodes_table(environment: Environment, episodes: Episodes) -> pa.Table:
    """Convert episodes to a table with columns `copy` and `t`, sorted by them.

    The last row of an episode contains its last state; action and reward are null. `terminated` is True in the last row
    of an episode that terminated.
    """
    copies, rows = episodes.states.shape[:2]
    step = torch.arange(rows)
    # Row t of a copy exists for t <= length, its action only for t < length.
    exists = step <= episodes.lengths[:, None]
    at_end = step == episodes.lengths[:, None]
    last = at_end[exists].numpy()
    columns: dict[str, pa.Array] = {
        "copy": pa.array(torch.arange(copies, dtype=torch.int32)[:, None].expand_as(exists)[exists].numpy()),
        "t": pa.array(step.int().expand_as(exists)[exists].numpy()),
    }
    for index, name in enumerate(environment.state_names):
        columns[name] = pa.array(episodes.states[..., index][exists].numpy())

    def of_steps(values: Tensor) -> np.ndarray:
        return torch.cat((values, torch.zeros_like(values[:, :1])), dim=1)[exists].numpy()

    action = of_steps(episodes.actions)
    if environment.num_actions is not None:
        action = action.astype(np.int8)[:, None]
    for index, name in enumerate(environment.action_names):
        columns[name] = pa.array(action[:, index], mask=last)
    columns["reward"] = pa.array(of_steps(episodes.rewards), mask=last)
    columns["terminated"] = pa.array((episodes.terminated[:, None] & at_end)[exists].numpy())
    return pa.table(columns)


@contextlib.contextmanager
def _on_one_thread() -> Iterator[None]:
    """Run on one thread: the last bits of a policy network's output depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_on_one_thread()
def collect_training(environment: Environment, dataset: str, covariates: Tensor, seed: int) -> pa.Table:
    """Collect the offline data set of this name: one trajectory per agent, columns `agent`, `t`, …"""
    policy = dataset_policy(environment, dataset, covariates)
    description = f"collecting {environment.name}, {dataset}"
    episodes = play(environment, policy, covariates, environment.max_steps, seed, description)
    table = episodes_table(environment, episodes)
    return table.rename_columns(["agent", *table.column_names[1:]])


@_on_one_thread()
def collect_test(environment: Environment, episodes: int, seed: int) -> pa.Table:
    """Collect test episodes of agents 0-4 under the test policy, at most 60 steps; columns `agent`, `episode`, …"""
    covariates = torch.tensor(environment.test_agents, dtype=torch.float64).repeat_interleave(episodes, dim=0)
    description = f"collecting {environment.name}, test episodes"
    played = play(environment, test_policy(environment), covariates, TEST_STEPS, seed, description)
    table = episodes_table(environment, played)
    copy = table["copy"].to_numpy()
    ids = {"agent": pa.array(copy // episodes), "episode": pa.array(copy % episodes)}
    return pa.table({**ids, **{name: table[name] for name in table.column_names[1:]}})


def agents_table(environment: Environment, covariates: Tensor) -> pa.Table:
    """Table of the hidden covariates, one row per agent; for evaluation and figures only."""
    columns = {"agent": pa.array(np.arange(len(covariates), dtype=np.int32))}
    for index, covariate in enumerate(environment.covariates):
        columns[covariate.name] = pa.array(covariates[:, index].numpy())
    return pa.table(columns)


class TrainingPaths(NamedTuple):
    """Files of one data set; its card is in the same folder."""

    table: Path
    agents: Path

    @classmethod
    def of(cls, root: Path, environment: str, dataset: str, num_agents: int, seed: int) -> TrainingPaths:
        """Paths of the data set, whether or not the files exist."""
        folder = root / environment / f"{dataset}-n{num_agents}-seed{seed}"
        return cls(folder / "train.parquet", folder / "agents.parquet")


def test_table(root: Path, environment: str, seed: int) -> Path:
    """Path of the test episodes, whether or not the file exists."""
    return root / environment / f"test-seed{seed}" / "test.parquet"


def ensure_training_data(
    root: Path, environment: Environment, dataset: str, num_agents: int, seed: int
) -> TrainingPaths:
    """Collect the missing files of `<root>/<environment>/<dataset>-n<agents>-seed<seed>/`.

    Raises
    ------
    ConfigurationError
        If there is no data set of that name, or the population is too small.
    """
    description = describe_dataset(environment, dataset)
    covariates = sample_population(environment, num_agents, seed)
    paths = TrainingPaths.of(root, environment.name, dataset, num_agents, seed)
    _write_missing(
        {
            paths.agents: lambda: agents_table(environment, covariates),
            paths.table: lambda: collect_training(environment, dataset, covariates, seed),
        },
        lambda: write_card(environment, paths.table, CardSource(dataset, description, seed)),
    )
    return paths


def ensure_test_data(root: Path, environment: Environment, seed: int) -> Path:
    """Collect the test episodes `<root>/<environment>/test-seed<seed>/test.parquet` if they are missing."""
    table = test_table(root, environment.name, seed)
    description = f"the policy trained on the default agent; a random action in {TEST_EPSILON:.0%} of the steps"
    source = CardSource("test", f"{description}; episodes are cut after {TEST_STEPS} steps", seed)
    _write_missing(
        {table: lambda: collect_test(environment, TEST_EPISODES, seed + _TEST_SEED)},
        lambda: write_card(environment, table, source),
    )
    return table


def _write_missing(collectors: dict[Path, Callable[[], pa.Table]], make_card: Callable[[], None]) -> None:
    """Write the tables of one folder that do not exist yet, and the card if it is incomplete or a table is new.

    Every file is written atomically. If several processes need the folder, one writes and the others wait.
    """
    folder = next(iter(collectors)).parent
    card = [folder / name for name in CARD_FILES]
    if all(path.is_file() for path in (*collectors, *card)):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for path, collect in collectors.items():
            if not path.is_file():
                for stale in card:
                    stale.unlink(missing_ok=True)
                write_table(collect(), path)
        if not all(path.is_file() for path in card):
            make_card()
