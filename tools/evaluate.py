"""See `python tools/evaluate.py --help`."""

from persim_lightning.cli import one_line_errors
from persim_lightning.commands import evaluate_command


@one_line_errors
def main() -> None:
    evaluate_command()


if __name__ == "__main__":
    main()
