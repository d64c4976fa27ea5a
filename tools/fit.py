"""Fit a personalised simulator of every agent: `python tools/fit.py --config conf/mountaincar.yaml`."""

from persim_lightning.cli import fit, one_line_errors


@one_line_errors
def main() -> None:
    fit()


if __name__ == "__main__":
    main()
