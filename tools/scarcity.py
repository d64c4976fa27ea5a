"""`persim scarcity` from a checkout: `python tools/scarcity.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("scarcity")
