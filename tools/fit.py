"""Fit a personalized simulator of every agent: `python tools/fit.py --config conf/mountaincar.yaml`."""

from persim_lightning.runs.fit import fit, one_line_errors


@one_line_errors
def main() -> None:
    fit()


if __name__ == "__main__":
    main()
