"""See `python tools/report.py --help`."""

from persim_lightning.cli import one_line_errors
from persim_lightning.report_command import report_command


@one_line_errors
def main() -> None:
    report_command()


if __name__ == "__main__":
    main()
