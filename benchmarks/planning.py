"""Speed of planning on a fitted run: the authors' planner settings, the shipped ones, and episodes planned together.

`python benchmarks/planning.py --run RUN` (on an idle machine).
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from persim_lightning.envs import Environment
from persim_lightning.evaluation.control import PlanningSettings, simulator_mpc
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.planning.cem import CEM
from persim_lightning.planning.shooting import RandomShooting
from persim_lightning.support.configurations import find_configuration
from persim_lightning.support.parsing import choose_agents
from persim_lightning.support.terminal import print_table

TOGETHER = 20


def authors_settings(environment: Environment, shipped: PlanningSettings) -> PlanningSettings:
    """The planner of the paper's experiments (PerSim, appendix), with the shipped objective."""
    if environment.num_actions is None:
        return replace(shipped, planner=CEM(plans=200, rounds=6, elites=50), horizon=30)
    return replace(shipped, planner=RandomShooting(plans=1000), horizon=50)


def seconds_a_decision(
    run: FittedRun, agent: int | str, settings: PlanningSettings, episodes: int, steps: int
) -> float:
    """Median over steps of an episode (first step left out), for one of the episodes that are planned together."""
    environment = run.real_environment()
    policy, _ = simulator_mpc(environment, run.personalized, [agent], episodes, settings)
    batch = environment.make_batch(run.covariates([agent]).expand(episodes, -1), seed=0)
    generator, times = torch.Generator().manual_seed(0), []
    for _ in range(steps + 1):
        start = time.perf_counter()
        actions = policy(batch.states, generator)
        times.append((time.perf_counter() - start) / episodes)
        batch.step(actions)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--agents", default="0-4")
    parser.add_argument("--steps", type=int, default=15, help="decisions that each median is taken over")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    run = FittedRun.load(given.run)
    environment = run.real_environment()
    shipped = PlanningSettings.load(find_configuration(environment.name, "planning"))
    authors = authors_settings(environment, shipped)
    rows = []
    for agent in choose_agents(run.personalized.agent_ids, given.agents):
        alone, ours, together = (
            seconds_a_decision(run, agent, settings, episodes, given.steps)
            for settings, episodes in ((authors, 1), (shipped, 1), (shipped, TOGETHER))
        )
        milliseconds = (f"{1000 * value:.1f}" for value in (alone, ours, together))
        rows.append((str(agent), *milliseconds, f"{ours / together:.1f}"))
    name, members = environment.name, run.personalized.simulator.members
    print_table(
        f"{name}, {members} members, {given.threads} thread(s): ms a decision",
        ("agent", "authors' planner", "shipped planner", f"{TOGETHER} episodes together", "speed-up together"),
        rows,
    )


if __name__ == "__main__":
    main()
