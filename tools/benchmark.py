"""See `python tools/benchmark.py --help`."""

from persim_lightning.benchmark_command import benchmark_command
from persim_lightning.cli import one_line_errors


@one_line_errors
def main() -> None:
    benchmark_command()


if __name__ == "__main__":
    main()
