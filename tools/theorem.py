"""See `python tools/theorem.py --help`."""

from persim_lightning.cli.theorem import theorem_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    theorem_command()


if __name__ == "__main__":
    main()
