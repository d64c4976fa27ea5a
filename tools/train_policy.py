"""`persim train-policy` from a checkout: `python tools/train_policy.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("train-policy")
