"""Uses held-out tails of trajectories: they calibrate intervals, and then count for agents' factors like other rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from persim_lightning.adaptation.intervals import Calibration
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import PersimWarning
from persim_lightning.evaluation.agent_posteriors import refit_on_all_rows
from persim_lightning.evaluation.filtering import filtered
from persim_lightning.evaluation.intervals import calibrate
from persim_lightning.models.population import FittedPopulation

# Share of a short trajectory that calibrates intervals.
SHORT_TAIL = 0.34


def has_tail(trajectories: Trajectories, tail: float) -> bool:
    """Return whether some trajectory is long enough for a tail."""
    return bool((trajectories.tail_starts(tail) < trajectories.lengths - 1).any())


def calibrate_and_refit(
    population: FittedPopulation, trajectories: Trajectories, tail: float, refit: bool = True
) -> Calibration | None:
    """Calibrate intervals on held-out tails, and then compute agents' factors, in place, from all rows.

    Parameters
    ----------
    population : FittedPopulation
    trajectories : Trajectories
        Training trajectories.
    tail : float
        Share of every trajectory, at its tail, that the population was not trained on.
    refit : bool
        False keeps the factors.

    Returns
    -------
    Calibration or None
        None if no trajectory is long enough for a tail; all rows were trained on then.
    """
    calibration = calibrate_on_tails(population, trajectories, tail)
    if calibration is not None and refit:
        refit_on_all_rows(population, trajectories)
    return calibration


def calibrate_by_second_fit(
    fit_heads: Callable[[float], FittedPopulation], trajectories: Trajectories
) -> Calibration | None:
    """Calibrate intervals of short trajectories by a second fit, without the last third of each.

    Parameters
    ----------
    fit_heads : callable, tail -> FittedPopulation
        Fits simulators without this share of every trajectory.
    trajectories : Trajectories

    Returns
    -------
    Calibration or None
        None, with a warning, if no trajectory has 4 rows.
    """
    if not has_tail(trajectories, SHORT_TAIL):
        warnings.warn("no trajectory has 4 rows, so there are no intervals", PersimWarning, stacklevel=2)
        return None
    return calibrate_on_tails(fit_heads(SHORT_TAIL), trajectories, SHORT_TAIL)


def calibrate_on_tails(population: FittedPopulation, trajectories: Trajectories, tail: float) -> Calibration | None:
    """Calibrate intervals on tails that a population was not fitted to; None if no trajectory is long enough."""
    return calibrate(population, filtered(population, trajectories), tail)
