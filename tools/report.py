"""`persim report` from a checkout: `python tools/report.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("report")
