"""`persim benchmark` from a checkout: `python tools/benchmark.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("benchmark")
