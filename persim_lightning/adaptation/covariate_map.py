"""Predicts agent factors from covariates, for agents without transitions.

(PerSim, section 6 and appendix, "unseen agents"; https://arxiv.org/abs/2102.06961.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from persim_lightning.adaptation.posterior import FactorPrior, floored
from persim_lightning.errors import ConfigurationError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_DEGREES = (1, 2, 3, 4)
_PENALTIES = np.logspace(-8, 2, 21)
# Largest number of polynomial features, as a share of the number of agents.
_MAX_FEATURES_SHARE = 0.25
MIN_AGENTS = 10


class CovariateMap:
    """Polynomial ridge regression of every member's factors on covariates or, if all are positive, their logarithms.

    The transformation, the degree and the penalty are chosen by leave-one-out errors.

    Parameters
    ----------
    covariates : ndarray, shape (N, C)
        Covariates of the fitted agents.
    factors : Tensor, shape (M, N, R)
    logarithms : bool
        False rules logarithms out, since covariates of other agents are not positive.

    Raises
    ------
    ConfigurationError
        If there are fewer than ten agents, or no covariate varies.
    """

    def __init__(self, covariates: np.ndarray, factors: Tensor, logarithms: bool = True) -> None:
        agents = len(covariates)
        if agents < MIN_AGENTS:
            raise ConfigurationError(f"a map from covariates needs at least {MIN_AGENTS} fitted agents, not {agents}")
        if not (covariates != covariates[:1]).any():
            raise ConfigurationError("no covariate differs between the fitted agents")
        self._shape = (factors.shape[0], factors.shape[2])
        targets = factors.detach().cpu().double().movedim(0, 1).flatten(1).numpy()
        # Effects of reciprocals and powers are smoother in the logarithm.
        transforms = [None, np.log] if logarithms and (covariates > 0).all() else [None]
        candidates = [
            fitted
            for transform in transforms
            for degree in _DEGREES
            if (fitted := _fit(covariates, targets, degree, transform)) is not None
        ]
        self._regression, left_out = min(candidates, key=lambda found: float(found[1].sum()))
        self._positive = self._regression[0].func is not None
        residual = targets - self._regression.predict(covariates).reshape(targets.shape)
        # Scale residuals up to the leave-one-out errors.
        inflation = np.sqrt(left_out / np.maximum(np.square(residual).mean(0), 1e-300))
        scaled = torch.from_numpy(residual * inflation).view(agents, *self._shape).movedim(1, 0)
        self._covariance = floored(scaled.mT @ scaled / agents)

    def __call__(self, covariates: np.ndarray) -> FactorPrior:
        """Predict the prior of the factors of K agents from covariates (K, C).

        Raises
        ------
        ConfigurationError
            If a covariate is not positive, but logarithms are used since those of all fitted agents were.
        """
        if self._positive and (covariates <= 0).any():
            raise ConfigurationError("covariates must be positive, as those of the fitted agents are")
        predicted = torch.from_numpy(self._regression.predict(covariates))
        return FactorPrior(predicted.view(-1, *self._shape).movedim(1, 0), self._covariance)


def _fit(
    covariates: np.ndarray, targets: np.ndarray, degree: int, transform: np.ufunc | None
) -> tuple[Pipeline, np.ndarray] | None:
    """Fit a regression, and compute every target's leave-one-out error; None if there are too many features."""
    # Imported late, since scikit-learn takes a second.
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

    polynomial = PolynomialFeatures(degree, include_bias=False)
    features = polynomial.fit(covariates[:1]).n_output_features_
    if degree > 1 and features > _MAX_FEATURES_SHARE * len(covariates):
        return None
    ridge = RidgeCV(_PENALTIES, alpha_per_target=True)
    steps = (FunctionTransformer(transform), StandardScaler(), polynomial, StandardScaler(), ridge)
    regression = make_pipeline(*steps).fit(covariates, targets)
    return regression, -ridge.best_score_
