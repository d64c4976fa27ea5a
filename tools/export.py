"""See `python tools/export.py --help`."""

from persim_lightning.cli import one_line_errors
from persim_lightning.export_command import export_command


@one_line_errors
def main() -> None:
    export_command()


if __name__ == "__main__":
    main()
