"""See `python tools/collect.py --help`."""

from persim_lightning.cli import one_line_errors
from persim_lightning.commands import collect_command


@one_line_errors
def main() -> None:
    collect_command()


if __name__ == "__main__":
    main()
