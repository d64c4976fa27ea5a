"""Neural rungs: the same network after trainings of several lengths, of which the backtest takes the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from persim_lightning.models.population import FittedPopulation
from persim_lightning.types import Statistics

NEURAL = "neural"
# Optimizer steps of the shortest training, and the factor to the next one.
_FIRST, _FACTOR = 100, 4
# Rows of a table for each step of its shortest training: where there are many, short trainings never pay.
_ROWS_EACH = 10
# Steps for each row of its longest training, and how many are always tried: small tables are soon learned by heart.
_MOST_EACH, _ALWAYS = 1.2, 400
# Error, relative to the best so far, from which longer trainings are not tried.
_WORSE = 1.1


class Neural(NamedTuple):
    """Neural simulators, and the normalization constants that they were trained with."""

    population: FittedPopulation
    statistics: Statistics


# (held-out tail, optimizer steps or None for the configured number) -> Neural
FitNeural = Callable[[float, int | None], Neural]


def budgets(rows: int, most: int) -> dict[str, int | None]:
    """Name the trainings to try, from the shortest on; in a large table, the last has the configured number of steps.

    Parameters
    ----------
    rows : int
        Rows of the table.
    most : int
        Configured number of optimizer steps.
    """
    steps, longest = _FIRST, max(_ALWAYS, _MOST_EACH * rows)
    found: dict[str, int | None] = {}
    while steps < most / 2:
        if rows / _ROWS_EACH <= steps <= longest:
            found[f"{NEURAL}, {steps} steps"] = steps
        steps *= _FACTOR
    return {**found, NEURAL: None} if most <= longest or not found else found


def fit_budgets(
    fit: FitNeural, wanted: dict[str, int | None], tail: float, score: Callable[[str, Neural], float]
) -> dict[str, Neural]:
    """Train longer and longer, until the backtest gets worse.

    Parameters
    ----------
    fit : callable
    wanted : dict
        From :func:`budgets`.
    tail : float
    score : callable, (name, Neural) -> error
    """
    fitted: dict[str, Neural] = {}
    best = float("inf")
    for name, steps in wanted.items():
        fitted[name] = fit(tail, steps)
        error = score(name, fitted[name])
        if error > _WORSE * best:
            break
        best = min(best, error)
    return fitted
