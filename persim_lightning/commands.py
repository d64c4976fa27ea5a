"""The small commands: `tools/collect.py` and `tools/evaluate.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from persim_lightning.cli import prediction_table
from persim_lightning.data.collect import DATASETS, ensure_dataset
from persim_lightning.envs import ENVIRONMENTS, get_environment
from persim_lightning.evaluation.report import evaluate, without_agents
from persim_lightning.files import write_json
from persim_lightning.models.personalized import PersonalizedSimulator


def collect_command(args: list[str] | None = None) -> None:
    """Make a data set: training trajectories, test trajectories and the agents' covariates."""
    parser = argparse.ArgumentParser(prog="collect.py", description=collect_command.__doc__)
    parser.add_argument("--env", required=True, choices=list(ENVIRONMENTS))
    parser.add_argument("--policy", default="random", choices=DATASETS, help="policy that moves the training agents")
    parser.add_argument("--agents", type=int, default=500, help="size of the population (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="population and trajectories (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    given = parser.parse_args(args)
    paths = ensure_dataset(given.root, get_environment(given.env), given.policy, given.agents, given.seed)
    for path in (paths.train, paths.test, paths.agents):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def evaluate_command(args: list[str] | None = None) -> None:
    """Score a run's 50-step rollouts on a table of test trajectories; print and write RMSE and R² per agent."""
    parser = argparse.ArgumentParser(prog="evaluate.py", description=evaluate_command.__doc__)
    parser.add_argument("--run", required=True, type=Path, help="run folder of tools/fit.py")
    parser.add_argument("--data", required=True, type=Path, help="test trajectories, .parquet or .csv")
    parser.add_argument(
        "--mean_agent", action="store_true", help="give every agent the population's mean factor, for comparison"
    )
    parser.add_argument("--out", type=Path, help="JSON to write (default: RUN/prediction-NAME[-mean-agent].json)")
    given = parser.parse_args(args)
    personalized = PersonalizedSimulator.load(given.run)
    if given.mean_agent:
        personalized = without_agents(personalized)
    records = evaluate(personalized, given.data)
    suffix = "-mean-agent" if given.mean_agent else ""
    out = given.out or given.run / f"prediction-{given.data.stem}{suffix}.json"
    write_json(records, out)
    Console().print(prediction_table(records, f"50-step rollouts on {given.data.name}"))
    print(f"wrote {out}")
