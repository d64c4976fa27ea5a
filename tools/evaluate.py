"""See `python tools/evaluate.py --help`."""

from persim_lightning.cli.commands import evaluate_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    evaluate_command()


if __name__ == "__main__":
    main()
