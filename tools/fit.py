"""`persim fit` from a checkout: `python tools/fit.py --config conf/mountaincar.yaml`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("fit")
