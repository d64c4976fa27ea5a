"""`persim benchmark`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.support.configurations import find_configuration
from persim_lightning.support.parsing import CommandParser
from persim_lightning.support.wandb import MODES


def main(arguments: list[str]) -> None:
    """Compare methods under the paper's protocols: fit, score and play a grid of data sets, methods and seeds."""
    args = _parse(arguments)
    # Imported after parsing: Lightning takes seconds.
    from persim_lightning.benchmark.grid import EpisodeCounts, Preset
    from persim_lightning.benchmark.run import BenchmarkRequest, run_benchmark

    path = find_configuration(args.preset, "benchmark", args.conf)
    changes = {"environments": args.env, "datasets": args.dataset}
    changes |= {name: getattr(args, name) for name in ("seeds", "agents", "steps", "max_steps")}
    preset = replace(Preset.load(path), **{name: value for name, value in changes.items() if value is not None})
    if args.episodes is not None:
        preset = replace(preset, episodes=EpisodeCounts(args.episodes, args.episodes), episodes_of={})
    run_benchmark(
        BenchmarkRequest(
            preset,
            runs=args.runs or Path("runs/benchmark") / path.stem,
            root=args.root,
            methods=args.methods,
            conf=args.conf,
            methods_folder=args.methods_folder,
            engine=args.engine,
            address=args.address or "auto",
            jobs=args.jobs,
            threads=args.threads,
            wandb=args.wandb,
        )
    )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="persim benchmark",
        description=f"{main.__doc__} Finished cells are kept, so the same command resumes after an "
        "interruption, and a grid may be run in pieces. "
        "Example: persim benchmark --env cartpole --dataset random --methods all",
    )
    grid = parser.add_argument_group("grid (default: the preset's)")
    grid.add_argument(
        "--preset", default="small", help="smoke, small, table, paper, or a YAML of your own (default: %(default)s)"
    )
    grid.add_argument("--env", nargs="+", metavar="ENV", help=f"environments: {', '.join(ENVIRONMENTS)}")
    grid.add_argument("--dataset", nargs="+", metavar="DATASET", help=f"data sets: {', '.join(DATASETS)}")
    grid.add_argument(
        "--methods", nargs="+", metavar="NAME", help="YAMLs of the methods folder, such as persim bcq-p; or all"
    )
    grid.add_argument("--seeds", nargs="+", type=NonNegativeInt, metavar="SEED", help="of data, networks and episodes")
    grid.add_argument("--agents", type=PositiveInt, help="size of the population")
    grid.add_argument("--steps", type=PositiveInt, help="gradient steps of every network")
    grid.add_argument("--episodes", type=PositiveInt, help="of every test agent, the same for all methods")
    grid.add_argument("--max_steps", type=PositiveInt, help="cut episodes after this many steps")
    files = parser.add_argument_group("files")
    files.add_argument("--conf", type=Path, help="folder of YAMLs (default: the shipped ones)")
    files.add_argument("--methods_folder", type=Path, help="folder of NAME.yaml (default: CONF/methods)")
    files.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    files.add_argument(
        "--runs", type=Path, help="results, tables and pictures of all cells run there (default: runs/benchmark/PRESET)"
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine",
        choices=("joblib", "ray"),
        default="joblib",
        help="processes of this machine, or a Ray cluster (default: %(default)s)",
    )
    engine.add_argument("--address", help="of the Ray cluster: auto, or HOST:PORT (default: auto)")
    engine.add_argument("--jobs", type=PositiveInt, help="cells at a time (default: 2; on Ray, all CPUs)")
    engine.add_argument("--threads", type=PositiveInt, default=1, help="CPU threads of each (default: %(default)s)")
    parser.add_argument(
        "--wandb",
        choices=MODES,
        default="auto",
        help="Weights & Biases: the tidy tables; auto is online where an API key is found, and otherwise offline, in "
        "RUNS/wandb (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    if args.address is not None and args.engine != "ray":
        parser.error("--address is an option of --engine ray")
    return args
