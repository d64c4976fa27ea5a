"""See `python tools/theorem.py --help`."""

from persim_lightning.cli import one_line_errors
from persim_lightning.theorem_command import theorem_command


@one_line_errors
def main() -> None:
    theorem_command()


if __name__ == "__main__":
    main()
