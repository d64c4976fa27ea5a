"""Speed of collecting: environment steps per second for 500 agents together, beside gymnasium's one by one.

`python benchmarks/collecting.py` (all environments and data sets; needs nothing).
"""

from __future__ import annotations

import argparse
import time
import warnings

import gymnasium
import torch

from persim_lightning.data.collecting.behavior import DATASETS, RandomPolicy
from persim_lightning.data.collecting.collect import collect_training
from persim_lightning.envs import ENVIRONMENTS, Environment
from persim_lightning.envs.population import sample_population
from persim_lightning.support.terminal import print_table

STEPS_ONE_BY_ONE = 5000


def together(environment: Environment, dataset: str, agents: int) -> tuple[float, int]:
    """Seconds for a whole data set, table included, and its transitions."""
    covariates = sample_population(environment, agents, seed=0)
    start = time.perf_counter()
    table = collect_training(environment, dataset, covariates, seed=0)
    return time.perf_counter() - start, table.num_rows - agents


def one_by_one(environment: Environment) -> float:
    """Steps per second of the registered gymnasium environment under random actions."""
    env = gymnasium.make(environment.gym_id)
    policy, generator = RandomPolicy(environment), torch.Generator().manual_seed(0)
    actions = policy(torch.zeros(STEPS_ONE_BY_ONE, len(environment.state_names)), generator).numpy()
    env.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return STEPS_ONE_BY_ONE / (time.perf_counter() - start)


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", nargs="+", default=list(ENVIRONMENTS), choices=list(ENVIRONMENTS))
    parser.add_argument("--agents", type=int, default=500)
    given = parser.parse_args()
    rows = []
    for name in given.env:
        environment = ENVIRONMENTS[name]
        alone = one_by_one(environment)
        for dataset in DATASETS:
            seconds, transitions = together(environment, dataset, given.agents)
            speed = transitions / seconds
            # Stepping one by one is measured under random actions only: it leaves the policy's own work out.
            beside = (f"{alone:,.0f}", f"{speed / alone:.1f}") if dataset == "random" else ("", "")
            rows.append((name, dataset, f"{seconds:.1f}", f"{transitions:,}", f"{speed:,.0f}", *beside))
    headings = ("environment", "data set", "seconds", "transitions", "steps/s", "one by one", "ratio")
    print_table(f"{given.agents} agents, one trajectory each", headings, rows)


if __name__ == "__main__":
    main()
