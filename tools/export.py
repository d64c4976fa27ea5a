"""See `python tools/export.py --help`."""

from persim_lightning.cli.export import export_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    export_command()


if __name__ == "__main__":
    main()
