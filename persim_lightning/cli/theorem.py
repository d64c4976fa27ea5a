"""`persim theorem`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.support.parsing import CommandParser
from persim_lightning.support.terminal import print_table

# Only with --env: a run has data of its own.
_ENVIRONMENT_DEFAULTS = {"dataset": "random", "agents": 500, "root": Path("data")}


def main(arguments: list[str]) -> None:
    """Check the low-rank theorem: on a fitted run beside the true dynamics, or on an environment alone."""
    parser = CommandParser(
        prog="persim theorem",
        description=f"{main.__doc__} Example: persim theorem --env cartpole --grid 5",
    )
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--run", type=Path, help="run folder of persim fit")
    subject.add_argument("--env", choices=list(ENVIRONMENTS), help="an environment: the true dynamics, no simulator")
    parser.add_argument("--dataset", choices=DATASETS, help="with --env: whose states and actions (random)")
    parser.add_argument("--agents", type=PositiveInt, help="with --env: size of the population (500)")
    parser.add_argument("--root", type=Path, help="with --env: folder of data sets (data)")
    parser.add_argument(
        "--grid", type=_grid, help="values of every state coordinate on a grid (default: recorded states)"
    )
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="which agents, states and actions are drawn")
    parser.add_argument("--threads", type=PositiveInt, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument(
        "--out", type=Path, help="folder to write to (default: RUN, a folder in it with --grid or --seed, or in runs/)"
    )
    args = parser.parse_args(arguments)
    options = {name: getattr(args, name) for name in _ENVIRONMENT_DEFAULTS if getattr(args, name) is not None}
    if args.run is not None and options:
        parser.error("--dataset, --agents and --root are options of --env: a run has data of its own")
    # Imported after parsing: TensorLy and scikit-learn take seconds.
    from persim_lightning.runs.theorem import TheoremSubject, check
    from persim_lightning.theory.summary import summary

    torch.set_num_threads(args.threads)
    start = time.monotonic()
    if args.run is not None:
        checked = TheoremSubject.of_run(args.run)
    else:
        checked = TheoremSubject.of_environment(args.env, **{**_ENVIRONMENT_DEFAULTS, **options})
    result, written = check(checked, args.out or _folder(args), args.grid, args.seed)
    if result.truth is not None:
        curve = result.truth.merged
        rows = [
            (str(rank), f"{cp:.2g}", f"{tucker:.2g}", f"{max(consistency, -100):.0f}", f"{converged} of {len(errors)}")
            for rank, cp, tucker, consistency, converged, errors in zip(
                *(curve.ranks, curve.cp, curve.tucker, curve.core_consistency, curve.converged, curve.cp_errors),
                strict=True,
            )
        ]
        headings = ("rank", "CP error", "Tucker error", "core consistency (cut at -100)", "converged")
        print_table("best decompositions of the true tensor", headings, rows)
    print(summary(result))
    print(f"{time.monotonic() - start:.0f} s; wrote {', '.join(map(str, written))}")


def _grid(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text}: at least 2 values of every coordinate")
    return int(text)


def _folder(args: argparse.Namespace) -> Path:
    """A check of other cells does not replace what the run's own check wrote."""
    parts = ["theorem", *([args.env] if args.env else [])]
    parts += [f"grid{args.grid}"] if args.grid else []
    parts += [f"seed{args.seed}"] if args.seed else []
    name = "-".join(parts)
    if args.run is None:
        return Path("runs") / name
    folder: Path = args.run
    return folder if name == "theorem" else folder / name
