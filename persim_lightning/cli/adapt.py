"""The command `tools/adapt.py`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.support.files import check_writable


def adapt_command(args: list[str] | None = None) -> None:
    """Add agents to a fitted population from a few rows of each, from covariates, or from both; nothing is trained."""
    parser = argparse.ArgumentParser(
        prog="adapt.py",
        description=f"{adapt_command.__doc__} Example: "
        "python tools/adapt.py --run RUN --data new.csv --out runs/larger",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of tools/fit.py, or what adapt.py wrote")
    parser.add_argument("--data", type=Path, help="rows of the new agents, in the columns of the training table")
    parser.add_argument("--covariates", type=Path, help="the new agents' covariates: their ids, and a column for each")
    parser.add_argument(
        "--known_covariates", type=Path, help="the fitted agents' (default: data.agents_path of the run)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the larger population")
    given = parser.parse_args(args)
    if given.data is None and given.covariates is None:
        parser.error("give --data, --covariates, or both")
    known = given.known_covariates
    if given.covariates is not None and known is None:
        known = FittedRun.load(given.run).agents_path
        if known is None:
            raise ConfigurationError(f"{given.run} was fitted without covariates: give --known_covariates")
    if (given.out / "simulator.json").exists():
        raise ConfigurationError(f"{given.out} holds a simulator: choose another --out")
    check_writable(given.out / "simulator.json")
    simulator = PersonalizedSimulator.load(given.run)
    start = time.perf_counter()
    larger = simulator.adapt(given.data, given.covariates, known)
    seconds = time.perf_counter() - start
    written = larger.save(given.out)
    new = larger.agents[len(simulator.agents) :]
    some = ", ".join(map(str, new[:5])) + (", …" if len(new) > 5 else "")
    print(f"added {len(new)} agent(s) ({some}) to {len(simulator.agents)} in {1000 * seconds:.0f} ms")
    print(f"wrote {', '.join(map(str, written))}")
