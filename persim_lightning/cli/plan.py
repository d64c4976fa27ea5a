"""`persim plan`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.evaluation.fitted_run import FittedRun
from persim_lightning.runs.play import PlayRequest, play
from persim_lightning.support.configurations import find_configuration
from persim_lightning.support.parsing import SettingsParser

_DESCRIPTION = """Play episodes in the real environment, planned on each agent's own simulator, beside the same planner
on the true dynamics. Example: persim plan --run RUN --agents 0-4 --episodes 20"""


def main(arguments: list[str]) -> None:
    """Play MPC episodes of a run's agents."""
    play(parse(arguments))


def parse(arguments: Sequence[str]) -> PlayRequest:
    """The request of a command line.

    Raises
    ------
    PersimError
        If the run or the settings cannot be read.
    """
    # The run names the environment, and so the default of --config.
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--run", type=Path)
    early.add_argument("--config")
    first, rest = early.parse_known_args(arguments)
    run = None if first.run is None else FittedRun.load(first.run)
    config = first.config
    if config is None and run is not None:
        config = run.real_environment().name
    if config is not None:
        rest = ["--config", str(find_configuration(config, "planning")), *rest]
    parser = _parser()
    args = parser.parse_args([*rest, *([] if first.run is None else ["--run", str(first.run)])])
    if run is None:
        raise ConfigurationError("give --run on the command line, not in a YAML")
    torch.set_num_threads(args.threads)
    names = list(PlanningSettings.__dataclass_fields__)
    values = yaml.safe_load(parser.dump(args))
    planning = {name: value for name, value in values.items() if name in names}
    return PlayRequest(
        run, planning, args.agents, args.episodes, args.seed, args.true_env, out=args.out, video=args.video
    )


def _parser() -> SettingsParser:
    parser = SettingsParser(prog="persim plan", description=_DESCRIPTION)
    parser.add_argument("--config", action="config", help="How to plan: name or YAML (default: the environment's).")
    parser.add_argument("--run", type=Path, required=True, help="Run folder of persim fit.")
    parser.add_argument("--agents", type=str, default="0-4", help="Ids and ranges, such as 0-4,17.")
    parser.add_argument("--episodes", type=PositiveInt, default=20, help="Episodes of every agent.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="Of first states and planning noise.")
    parser.add_argument("--threads", type=PositiveInt, default=torch.get_num_threads(), help="CPU threads.")
    parser.add_argument(
        "--true_env", type=bool, default=True, help="Plan on the true dynamics too, with the same planner and seed."
    )
    parser.add_argument("--video", type=Path | None, default=None, help="Film of the first episode: .gif or .mp4.")
    parser.add_argument(
        "--out",
        type=Path | None,
        default=None,
        help="JSON to write; a picture is written beside it (default: RUN/control.json).",
    )
    parser.add_class_arguments(PlanningSettings, None)
    return parser
