"""`persim unseen`."""

from __future__ import annotations

from persim_lightning.cli.studies import add_study_arguments, study_settings
from persim_lightning.support.parsing import CommandParser


def main(arguments: list[str]) -> None:
    """Fit a population without its test agents, adapt to them from a few rows or covariates, and score them."""
    parser = CommandParser(prog="persim unseen", description=f"{main.__doc__} Example: persim unseen --env mountaincar")
    add_study_arguments(parser, "unseen")
    args = parser.parse_args(arguments)
    # Imported after parsing: Lightning takes seconds.
    from persim_lightning.studies.unseen import unseen_study, write_unseen

    scores = unseen_study(args.env, study_settings(args), args.runs)
    print(f"wrote {', '.join(map(str, write_unseen(args.env, scores, args.runs)))}")
