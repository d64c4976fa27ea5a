"""Uses agents' covariates as the prior of their factors."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from persim_lightning.adaptation.covariate_map import MIN_AGENTS, CovariateMap
from persim_lightning.adaptation.posterior import FactorPrior


def covariate_prior(factors: Tensor, known: np.ndarray, wanted: np.ndarray) -> FactorPrior | None:
    """Predict the prior of agents from covariates by a map that fitted agents determine.

    Parameters
    ----------
    factors : Tensor, shape (M, N, R)
        Factors of fitted agents.
    known : ndarray, shape (N, C)
        Their covariates; NaN where missing.
    wanted : ndarray, shape (K, C)
        Covariates of the agents that need a prior; NaN where missing.

    Returns
    -------
    FactorPrior or None
        None if there are too few agents, or nothing differs between them.
    """
    _, asked = without_missing(known, wanted)
    found = covariate_map(factors, known, bool((asked > 0).all()))
    return None if found is None else found(asked)


def covariate_map(factors: Tensor, known: np.ndarray, logarithms: bool) -> CovariateMap | None:
    """Estimate the map from covariates (N, C), NaN where missing, to factors (M, N, R).

    None if there are too few agents, or nothing differs between them.
    """
    filled, _ = without_missing(known, known)
    if len(filled) < MIN_AGENTS or not (filled != filled[:1]).any():
        return None
    return CovariateMap(filled, factors.detach(), logarithms)


def without_missing(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace missing covariates of fitted agents (N, C) and of others (K, C) by the means of the fitted agents."""
    means = np.nanmean(np.where(np.isnan(known).all(0), 0.0, known), axis=0)
    return np.where(np.isnan(known), means, known), np.where(np.isnan(wanted), means, wanted)
