"""See `python tools/collect.py --help`."""

from persim_lightning.cli.commands import collect_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    collect_command()


if __name__ == "__main__":
    main()
