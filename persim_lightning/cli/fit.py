"""`persim fit`: options to settings."""

from __future__ import annotations

from persim_lightning.runs.fit import fit
from persim_lightning.runs.settings import parse_fit


def main(arguments: list[str]) -> None:
    """Fit a personalized simulator of every agent."""
    fit(parse_fit(arguments))
