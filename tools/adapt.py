"""`persim adapt` from a checkout: `python tools/adapt.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("adapt")
