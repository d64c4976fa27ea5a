"""Collects one trajectory per agent, all agents stepped together, into the canonical table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from rich.progress import track
from torch import Tensor

from persim_lightning.data.behavior import Policy, RandomPolicy, test_policy
from persim_lightning.data.table import write_table
from persim_lightning.envs import Environment
from persim_lightning.envs.population import sample_population
from persim_lightning.errors import ConfigurationError

# The prediction protocol looks at t = 10 … 60 of 200 episodes per test agent.
TEST_EPISODES = 200
TEST_STEPS = 60
DATASETS = ("random",)


def collect(
    environment: Environment, policy: Policy, covariates: Tensor, max_steps: int, seed: int, description: str
) -> pa.Table:
    """Run one episode per row of `covariates` and lay the rows out as a table with columns `copy` and `t`.

    Parameters
    ----------
    environment : Environment
    policy : Policy
    covariates : Tensor, shape (B, C)
    max_steps : int
        Episodes are cut after this many steps.
    seed : int
        Seed of initial states and of the policy: same seed, same table.
    description : str
        Label of the progress bar.

    Returns
    -------
    pyarrow.Table
        Sorted by (copy, t); the action in the last row of an episode is null; `terminated` marks the real ends.
    """
    batch = environment.make_batch(covariates, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    copies = len(covariates)
    states = [batch.states]
    actions = []
    running = torch.ones(copies, dtype=torch.bool)
    # Last row of each episode, and whether it ended there by itself.
    length = torch.full((copies,), max_steps)
    ended = torch.zeros(copies, dtype=torch.bool)
    for t in track(range(max_steps), description=description, transient=True):
        actions.append(policy(batch.states, generator))
        states.append(batch.step(actions[-1]))
        now = running & environment.terminated(batch.states)
        length[now] = t + 1
        ended |= now
        running &= ~now
        if not running.any():
            break
    state, action = torch.stack(states, dim=1), torch.stack(actions, dim=1)
    # Row t of a copy exists for t <= length, its action for t < length.
    step = torch.arange(state.shape[1])
    exists = step <= length[:, None]
    columns: dict[str, pa.Array] = {
        "copy": pa.array(torch.arange(copies, dtype=torch.int32)[:, None].expand_as(exists)[exists].numpy()),
        "t": pa.array(step.int().expand_as(exists)[exists].numpy()),
    }
    for index, name in enumerate(environment.state_names):
        columns[name] = pa.array(state[..., index][exists].numpy())
    at_end = step == length[:, None]
    last = at_end[exists].numpy()
    action = torch.cat((action, torch.zeros_like(action[:, :1])), dim=1)[exists]
    values = action.numpy().astype(np.int8)[:, None] if environment.num_actions is not None else action.numpy()
    for index, name in enumerate(environment.action_names):
        columns[name] = pa.array(values[:, index], mask=last)
    columns["terminated"] = pa.array((ended[:, None] & at_end)[exists].numpy())
    return pa.table(columns)


def collect_training(environment: Environment, covariates: Tensor, seed: int) -> pa.Table:
    """The offline data set under uniformly random actions: one trajectory for each agent, column `agent`."""
    policy = RandomPolicy(environment)
    table = collect(environment, policy, covariates, environment.max_steps, seed, f"collecting {environment.name}")
    return table.rename_columns(["agent", *table.column_names[1:]])


def collect_test(environment: Environment, episodes: int, seed: int) -> pa.Table:
    """Test episodes of agents 0-4 under the test policy, columns `agent` and `episode`."""
    covariates = torch.tensor(environment.test_agents, dtype=torch.float64).repeat_interleave(episodes, dim=0)
    table = collect(environment, test_policy(environment), covariates, TEST_STEPS, seed, "collecting test episodes")
    copy = table["copy"].to_numpy()
    ids = {"agent": pa.array(copy // episodes), "episode": pa.array(copy % episodes)}
    return pa.table({**ids, **{name: table[name] for name in table.column_names[1:]}})


def agents_table(environment: Environment, covariates: Tensor) -> pa.Table:
    """The hidden covariates, one row per agent; for evaluation and pictures only."""
    columns = {"agent": pa.array(np.arange(len(covariates), dtype=np.int32))}
    for index, covariate in enumerate(environment.covariates):
        columns[covariate.name] = pa.array(covariates[:, index].numpy())
    return pa.table(columns)


class DatasetPaths:
    """Where the tables of one data set live: `<root>/<environment>/<dataset>-n<agents>-seed<seed>/`."""

    def __init__(self, root: Path, environment: Environment, dataset: str, num_agents: int, seed: int) -> None:
        self.folder = root / environment.name / f"{dataset}-n{num_agents}-seed{seed}"
        self.train = self.folder / "train.parquet"
        self.agents = self.folder / "agents.parquet"
        self.test = self.folder / "test.parquet"


def ensure_dataset(root: Path, environment: Environment, dataset: str, num_agents: int, seed: int) -> DatasetPaths:
    """Collect whatever is missing of a data set; safe when several processes call it at once.

    Every table is written whole or not at all, and a lock lets the first caller collect while the others wait.

    Raises
    ------
    ConfigurationError
        If there is no data set of that name, or the population is too small.
    """
    if dataset not in DATASETS:
        raise ConfigurationError(
            f"unknown dataset '{dataset}' for {environment.name}: choose from {', '.join(DATASETS)}"
        )
    paths = DatasetPaths(root, environment, dataset, num_agents, seed)

    makers: dict[Path, Callable[[], pa.Table]] = {
        paths.agents: lambda: agents_table(environment, covariates),
        paths.train: lambda: collect_training(environment, covariates, seed),
        paths.test: lambda: collect_test(environment, TEST_EPISODES, seed + 1_000_000),
    }
    if all(path.is_file() for path in makers):
        return paths
    covariates = sample_population(environment, num_agents, seed)
    paths.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.folder / ".lock"):
        for path, make in makers.items():
            if not path.is_file():
                write_table(make(), path)
    return paths
