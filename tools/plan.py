"""See `python tools/plan.py --help`."""

from persim_lightning.runs.fit import one_line_errors
from persim_lightning.runs.play import plan_command


@one_line_errors
def main() -> None:
    plan_command()


if __name__ == "__main__":
    main()
