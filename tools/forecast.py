"""`persim forecast` from a checkout: `python tools/forecast.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("forecast")
