"""See `python tools/scarcity.py --help`."""

from persim_lightning.runs.fit import one_line_errors
from persim_lightning.studies.scarcity import scarcity_command


@one_line_errors
def main() -> None:
    scarcity_command()


if __name__ == "__main__":
    main()
