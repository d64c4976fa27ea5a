"""`persim scarcity`."""

from __future__ import annotations

from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.cli.studies import add_study_arguments, study_settings
from persim_lightning.support.parsing import CommandParser

_SIZES = (25, 50, 100, 250, 500)


def main(arguments: list[str]) -> None:
    """Fit populations of 25 to 500 agents with equally many optimizer steps, and score the same five test agents."""
    parser = CommandParser(
        prog="persim scarcity",
        description=f"{main.__doc__} Example: persim scarcity --env cartpole --episodes 5",
    )
    add_study_arguments(parser, "scarcity")
    parser.add_argument(
        "--agents", type=PositiveInt, nargs="+", default=list(_SIZES), help="sizes (default: %(default)s)"
    )
    parser.add_argument(
        "--episodes", type=NonNegativeInt, default=0, help="MPC episodes of every agent, for returns (default: none)"
    )
    args = parser.parse_args(arguments)
    # Imported after parsing: Lightning takes seconds.
    from persim_lightning.studies.scarcity import scarcity_study, write_scarcity

    scores = scarcity_study(args.env, study_settings(args), args.runs, args.agents, args.episodes)
    print(f"wrote {', '.join(map(str, write_scarcity(args.env, scores, args.episodes, args.runs)))}")
