"""See `python tools/benchmark.py --help`."""

from persim_lightning.cli.benchmark import benchmark_command
from persim_lightning.runs.fit import one_line_errors


@one_line_errors
def main() -> None:
    benchmark_command()


if __name__ == "__main__":
    main()
