"""The command `tools/theorem.py`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.data.collecting.collect import ensure_training_data
from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.tables.covariates import load_covariates
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import ENVIRONMENTS, Environment, get_environment
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.files import check_writable
from persim_lightning.support.terminal import print_table
from persim_lightning.theory.check import check_theorem
from persim_lightning.theory.report import write_check
from persim_lightning.theory.results import AgentCovariates
from persim_lightning.theory.sample import sample_cells
from persim_lightning.theory.summary import summary
from persim_lightning.theory.tensors import state_grid


def theorem_command(args: list[str] | None = None) -> None:
    """Check the low-rank theorem: on a fitted run beside the true dynamics, or on an environment alone."""
    parser = argparse.ArgumentParser(
        prog="theorem.py",
        description=f"{theorem_command.__doc__} Example: python tools/theorem.py --env cartpole --grid 5",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="run folder of tools/fit.py")
    what.add_argument("--env", choices=list(ENVIRONMENTS), help="an environment: no simulator, the truth alone")
    parser.add_argument("--dataset", choices=DATASETS, help="with --env: whose states and actions (random)")
    parser.add_argument("--agents", type=PositiveInt, help="with --env: size of the population (500)")
    parser.add_argument("--root", type=Path, help="with --env: folder of data sets (data)")
    parser.add_argument(
        "--grid", type=_grid, help="a grid of so many values of every state coordinate instead of recorded states"
    )
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="which agents, states and actions are drawn")
    parser.add_argument("--threads", type=PositiveInt, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder to write to (default: RUN, a folder in it with --grid or --seed, or in runs/)",
    )
    given = parser.parse_args(args)
    if given.run is not None and (given.dataset or given.agents or given.root):
        parser.error("--dataset, --agents and --root belong to --env: a run has data of its own")
    folder = given.out or _folder(given)
    check_writable(folder / "theorem.json")
    torch.set_num_threads(given.threads)
    start = time.monotonic()
    environment, personalized, trajectories, agents = _subject(given)
    facts = (
        None
        if agents is None
        else AgentCovariates(*load_covariates(agents, trajectories.agent_ids, trajectories.schema.agent))
    )
    sample = sample_cells(trajectories, given.seed)
    if given.grid is not None:
        low, high = trajectories.state.amin(0), trajectories.state.amax(0)
        sample = sample._replace(states=state_grid(low, high, given.grid).float())
    name = given.env or given.run.name
    check = check_theorem(name, personalized, trajectories, environment, facts, sample)
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


def _grid(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text}: at least 2 values of every coordinate")
    return int(text)


def _folder(given: argparse.Namespace) -> Path:
    """What a run's own check wrote is not replaced by a check of other cells."""
    name = "-".join(
        ["theorem", *([given.env] if given.env else [])]
        + ([f"grid{given.grid}"] if given.grid else [])
        + ([f"seed{given.seed}"] if given.seed else [])
    )
    if given.run is None:
        return Path("runs") / name
    folder: Path = given.run
    return folder if name == "theorem" else folder / name


def _subject(
    given: argparse.Namespace,
) -> tuple[Environment | None, FittedPopulation | None, Trajectories, Path | None]:
    """Environment, simulator, trajectories, table of covariates."""
    if given.run is not None:
        run = FittedRun.load(given.run)
        return run.environment, run.personalized, run.trajectories(), run.agents_path
    environment = get_environment(given.env)
    tables = ensure_training_data(
        given.root or Path("data"), environment, given.dataset or "random", given.agents or 500, 0
    )
    return environment, None, load_trajectories(tables.table, environment.schema), tables.agents
