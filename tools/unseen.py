"""See `python tools/unseen.py --help`."""

from persim_lightning.runs.fit import one_line_errors
from persim_lightning.studies.unseen import unseen_command


@one_line_errors
def main() -> None:
    unseen_command()


if __name__ == "__main__":
    main()
