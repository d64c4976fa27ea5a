"""`persim plan` from a checkout: `python tools/plan.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("plan")
