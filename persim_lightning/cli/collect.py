"""`persim collect`."""

from __future__ import annotations

from pathlib import Path

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.data.collecting.card import MARKDOWN
from persim_lightning.data.collecting.collect import ensure_test_data, ensure_training_data
from persim_lightning.envs import ENVIRONMENTS, get_environment
from persim_lightning.support.parsing import CommandParser


def main(arguments: list[str]) -> None:
    """Make a data set: training and test trajectories, the agents' covariates, and cards that describe them."""
    parser = CommandParser(prog="persim collect", description=main.__doc__)
    parser.add_argument("--env", required=True, choices=list(ENVIRONMENTS))
    parser.add_argument("--policy", default="random", choices=DATASETS, help="of the training agents (%(default)s)")
    parser.add_argument(
        "--split",
        default="all",
        choices=("all", "train", "test"),
        help="training trajectories, test trajectories (always under the test policy), or both (default)",
    )
    parser.add_argument("--agents", type=int, default=500, help="size of the population (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of population and trajectories (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    args = parser.parse_args(arguments)
    environment = get_environment(args.env)
    tables: list[Path] = []
    if args.split != "test":
        tables += ensure_training_data(args.root, environment, args.policy, args.agents, args.seed)
    if args.split != "train":
        tables.append(ensure_test_data(args.root, environment, args.seed))
    for path in tables:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    for folder in dict.fromkeys(path.parent for path in tables):
        print(f"description of {folder}: {folder / MARKDOWN}")
