"""See `python tools/report.py --help`."""

from persim_lightning.cli.report import report_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    report_command()


if __name__ == "__main__":
    main()
