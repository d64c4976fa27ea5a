"""`persim unseen` from a checkout: `python tools/unseen.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("unseen")
