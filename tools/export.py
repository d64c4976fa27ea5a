"""`persim export` from a checkout: `python tools/export.py --help`."""

from persim_lightning.cli.main import run

if __name__ == "__main__":
    run("export")
