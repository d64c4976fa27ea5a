"""Options that the studies share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from persim_lightning.envs import ENVIRONMENTS


def add_study_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Environment, configuration, folders, and further options of the fits."""
    parser.add_argument("--env", required=True, choices=list(ENVIRONMENTS))
    parser.add_argument("--config", help="of the fits: name or YAML (default: ENV)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs") / name, help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument("options", nargs="*", help="further options of persim fit for every run, after --")


def study_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the fits."""
    from persim_lightning.runs.settings import parse_fit

    return parse_fit(["--config", args.config or args.env, "--data.root", str(args.root), *args.options])
