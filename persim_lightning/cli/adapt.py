"""`persim adapt`."""

from __future__ import annotations

import time
from pathlib import Path

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.store.names import DESCRIPTION
from persim_lightning.support.files import check_writable
from persim_lightning.support.parsing import CommandParser

_MAX_LISTED = 5


def main(arguments: list[str]) -> None:
    """Add agents to a fitted population from a few rows of each, from covariates, or from both; nothing is trained."""
    parser = CommandParser(
        prog="persim adapt",
        description=f"{main.__doc__} Example: persim adapt --run RUN --data new.csv --out runs/larger",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of persim fit, or of persim adapt")
    parser.add_argument("--data", type=Path, help="rows of the new agents, in the columns of the training table")
    parser.add_argument("--covariates", type=Path, help="of the new agents: a column of ids, and one per covariate")
    parser.add_argument(
        "--known_covariates", type=Path, help="of the fitted agents (default: data.agents_path of the run)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the larger population")
    args = parser.parse_args(arguments)
    if args.data is None and args.covariates is None:
        parser.error("give --data, --covariates, or both")
    known = args.known_covariates
    if args.covariates is not None and known is None:
        known = FittedRun.load(args.run).agents_path
        if known is None:
            raise ConfigurationError(f"{args.run} was fitted without covariates: give --known_covariates")
    if (args.out / DESCRIPTION).exists():
        raise ConfigurationError(f"{args.out} holds a simulator: choose another --out")
    check_writable(args.out / DESCRIPTION)
    simulator = PersonalizedSimulator.load(args.run)
    start = time.perf_counter()
    larger = simulator.adapt(args.data, args.covariates, known)
    milliseconds = 1000 * (time.perf_counter() - start)
    written = larger.save(args.out)
    new = larger.agents[len(simulator.agents) :]
    some = ", ".join(map(str, new[:_MAX_LISTED])) + (", …" if len(new) > _MAX_LISTED else "")
    print(f"added {len(new)} agent(s) ({some}) to {len(simulator.agents)} in {milliseconds:.0f} ms")
    print(f"wrote {', '.join(map(str, written))}")
