"""`persim theorem` from a checkout: `python tools/theorem.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("theorem")
