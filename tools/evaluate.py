"""`persim evaluate` from a checkout: `python tools/evaluate.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("evaluate")
