"""See `python tools/adapt.py --help`."""

from persim_lightning.cli.adapt import adapt_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    adapt_command()


if __name__ == "__main__":
    main()
