"""See `python tools/adapt.py --help`."""

from persim_lightning.adapt_command import adapt_command
from persim_lightning.cli import one_line_errors


@one_line_errors
def main() -> None:
    adapt_command()


if __name__ == "__main__":
    main()
