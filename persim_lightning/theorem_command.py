"""The command `tools/theorem.py`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from persim_lightning.data.behavior import DATASETS
from persim_lightning.data.collect import ensure_training_data
from persim_lightning.data.table import load_covariates
from persim_lightning.data.user_table import read_like
from persim_lightning.envs import ENVIRONMENTS, Environment, get_environment
from persim_lightning.evaluation.run import FittedRun
from persim_lightning.models.personalized import PersonalizedSimulator
from persim_lightning.terminal import print_table
from persim_lightning.theory.check import AgentFacts, check_theorem
from persim_lightning.theory.report import write_check
from persim_lightning.theory.sample import sample_cells
from persim_lightning.theory.summary import summary
from persim_lightning.theory.tensors import state_grid


def theorem_command(args: list[str] | None = None) -> None:
    """Check the low-rank theorem: on a fitted run beside the true dynamics, or on an environment alone."""
    parser = argparse.ArgumentParser(prog="theorem.py", description=theorem_command.__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="run folder of tools/fit.py")
    what.add_argument("--env", choices=list(ENVIRONMENTS), help="an environment: no simulator, the truth alone")
    parser.add_argument("--dataset", choices=DATASETS, default="random", help="with --env: whose states and actions")
    parser.add_argument("--agents", type=int, default=500, help="with --env: size of the population")
    parser.add_argument("--root", type=Path, default=Path("data"), help="with --env: folder of data sets (data)")
    parser.add_argument(
        "--grid", type=int, help="a grid of so many values of every state coordinate instead of recorded states"
    )
    parser.add_argument("--seed", type=int, default=0, help="which agents, states and actions are drawn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", type=Path, help="folder to write to (default: RUN, or runs/theorem-ENV)")
    given = parser.parse_args(args)
    torch.set_num_threads(given.threads)
    start = time.monotonic()
    environment, personalized, table, agents = _subject(given)
    schema = get_environment(given.env).schema if personalized is None else personalized.schema
    trajectories = read_like(schema, table)
    facts = None if agents is None else AgentFacts(*load_covariates(agents, trajectories.agent_ids))
    sample = sample_cells(trajectories, given.seed)
    if given.grid is not None:
        low, high = trajectories.state.amin(0), trajectories.state.amax(0)
        sample = sample._replace(states=state_grid(low, high, given.grid).float())
    name = given.env or given.run.name
    check = check_theorem(name, personalized, trajectories, environment, facts, sample)
    folder = given.out or given.run or Path("runs") / f"theorem-{given.env}"
    written = write_check(check, folder)
    if check.truth is not None:
        curve = check.truth.merged
        rows = [
            (str(rank), f"{cp:.2g}", f"{tucker:.2g}", f"{max(consistency, -100):.0f}", f"{converged} of {len(errors)}")
            for rank, cp, tucker, consistency, converged, errors in zip(
                *(curve.ranks, curve.cp, curve.tucker, curve.core_consistency, curve.converged, curve.cp_errors),
                strict=True,
            )
        ]
        headings = ("rank", "CP error", "Tucker error", "core consistency (cut at -100)", "converged")
        print_table("best decompositions of the true tensor", headings, rows)
    print(summary(check))
    print(f"{time.monotonic() - start:.0f} s; wrote {', '.join(map(str, written))}")


def _subject(given: argparse.Namespace) -> tuple[Environment | None, PersonalizedSimulator | None, Path, Path | None]:
    """Environment, simulator, table of trajectories, table of covariates."""
    if given.run is not None:
        run = FittedRun.load(given.run)
        return run.environment, run.personalized, run.table_path, run.agents_path
    environment = get_environment(given.env)
    tables = ensure_training_data(given.root, environment, given.dataset, given.agents, 0)
    return environment, None, tables.table, tables.agents
