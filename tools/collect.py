"""`persim collect` from a checkout: `python tools/collect.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("collect")
